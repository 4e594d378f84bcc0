"""The sdist and the wheel, built once, and the wheel installed in an environment of its own."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from the unpacked sdist."""
    target = tmp_path_factory.mktemp("dist")
    _build("--outdir", target, TREE)
    return target


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """The wheel that was built from the sdist."""
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def wheel_of_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the checkout, as `pip install .` does."""
    target = tmp_path_factory.mktemp("wheel")
    _build("--wheel", "--outdir", target, TREE)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The interpreter of an environment with the wheel in it.

    Its dependencies are those of the environment that runs the tests: nothing is downloaded. A
    `.pth` file adds their folder behind the environment's own, and what is in that folder's `.pth`
    files, our editable install, does not come along.
    """
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, with_pip=False, symlinks=True)
    made = directory / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", made, "install", "--no-deps", "-q", wheel],
        check=True,
    )
    site = directory / sysconfig.get_path("purelib", vars={"base": ""}).lstrip("/")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def _build(*args: str | Path) -> None:
    """Call `python -m build` with what the `dev` group has of hatchling: nothing is downloaded."""
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", *args], check=True)
