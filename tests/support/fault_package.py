"""The package of docs/adding-a-fault.md, put where entry points are found as if pip had done so."""

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-fault.md"
_FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(_FILE.findall(PAGE.read_text(encoding="utf-8")))


def install(directory: Path) -> Path:
    """Install the package into a directory, which is to be on `sys.path`."""
    shown = files()
    about = tomllib.loads(shown["pyproject.toml"])["project"]
    for name, text in shown.items():
        if name.endswith(".py"):
            (directory / name).write_text(text)
    points = about["entry-points"]["counterfault.faults"]
    offer(directory, about["name"], points)
    return directory


def offer(directory: Path, package: str, faults: dict[str, str]) -> None:
    """Write what pip writes of a package that offers faults: its metadata and entry points."""
    info = directory / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in faults.items())
    (info / "entry_points.txt").write_text(f"[counterfault.faults]\n{points}")
