"""docs/architecture.md names every room, and everything that the guides name exists."""

import re
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


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_named(room):
    """In the picture below its folder's name, or by its path."""
    text = ARCHITECTURE.read_text()
    top, _, name = room.partition("/")
    picture = next(b for b in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "imports" in b)
    halves = dict(zip(("addons", "proxy"), re.split(r"^proxy/", picture, flags=re.M), strict=True))
    in_picture = re.search(rf"(?<![\w/]){re.escape(name)}/\s", halves[top])
    assert in_picture or f"`{room}/`" in text


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
