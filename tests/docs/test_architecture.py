"""docs/architecture.md names every room, and everything that the guides name exists."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ARCHITECTURE, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "adr").glob("*.md"))]
_PATH = re.compile(
    r"`((?:proxy|addons|tests|docs|deploy|config|scripts|counterfault|\.ci)/[^`<]*)`"
)


def rooms() -> list[str]:
    """The folders of code, such as `proxy/runs`."""
    packages = [p.parent for top in ("proxy", "addons") for p in (ROOT / top).rglob("__init__.py")]
    found = {str(folder.relative_to(ROOT)) for folder in packages}
    return sorted(found - {"proxy", "addons"})


def picture(top: str) -> list[set[str]]:
    """The floors of `proxy` or `addons` as the picture has them, from the top down."""
    blocks = re.findall(r"```\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    (drawn,) = (block for block in blocks if "imports" in block)
    halves = dict(zip(("addons", "proxy"), re.split(r"^proxy/", drawn, flags=re.M), strict=True))
    lines = [line for line in halves[top].splitlines() if line.startswith("  ")]
    floors = [set(re.findall(r"(\w+)(?:/|\.py)(?=\s)", line)) for line in lines]
    return [floor for floor in floors if floor]


def floors(top: str) -> Iterator[set[str]]:
    """The same by the contracts of import-linter; a room in parentheses is not built yet."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = (c for c in contracts["contracts"] if c["name"] == f"rooms of {top}/")
    for layer in found["layers"]:
        names = {name.strip() for name in layer.split("|")}
        if built := {name for name in names if not name.startswith("(")}:
            yield built


@pytest.mark.parametrize("top", ["addons", "proxy"])
def test_the_picture_has_the_floors_of_the_contracts(top):
    assert picture(top) == list(floors(top))


def test_the_pure_rooms_are_those_of_the_contract():
    """The page names them all, and a fleet will be one of them as soon as there is one."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (pure,) = (c for c in contracts["contracts"] if c["name"].startswith("the core decides"))
    modules = [
        name.removeprefix("counterfault.").replace(".", "/") for name in pure["source_modules"]
    ]
    (sentence,) = re.findall(r"The core is pure: (.*?) do no IO", ARCHITECTURE.read_text(), re.S)
    assert sorted(re.findall(r"`([\w/]+?)(?:/|\.py)`", sentence)) == sorted(modules)
    assert "proxy/fleet" in modules or not (ROOT / "proxy" / "fleet").exists()


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_named(room):
    """In the picture, or by its path."""
    top, _, name = room.partition("/")
    drawn = set().union(*picture(top))
    assert name in drawn or f"`{room}/`" in ARCHITECTURE.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_guide_names_exists(page):
    named = _PATH.findall(page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_paths_are_found_at_all():
    assert len(_PATH.findall(ARCHITECTURE.read_text())) > 30


def test_every_decision_record_is_in_the_index():
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == records
    for name in records:
        title = (folder / name).read_text().splitlines()[0]
        assert title.startswith(f"# {name[:4]} ")
