"""The guides: their links lead somewhere, their commands and files are those that are tested."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterfault.proxy.cli import main as cli
from counterfault.proxy.config.loader import load
from tests.support.prometheus_server import DEPLOY

TREE = DEPLOY.parent
GUIDES = sorted((TREE / "docs").rglob("*.md"))
PAGES = [*GUIDES, *sorted(TREE.glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links() -> Iterator[Any]:
    for page in PAGES:
        for link in _LINK.findall(page.read_text()):
            if not link.startswith("http"):
                yield pytest.param(page, link, id=f"{page.name}: {link}")


def _commands() -> Iterator[Any]:
    """Every call of `counterfault` in the pages' shell blocks and in their text."""
    for page in GUIDES:
        text = page.read_text()
        lines = [
            line for kind, b in _BLOCK.findall(text) if kind == "sh" for line in b.splitlines()
        ]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            if found := re.search(
                r"(?:^|[ /])counterfault ((?:run|check|status|stop|resume)\b.*)", line
            ):
                yield pytest.param(found[1], id=f"{page.name}: {found[1]}")


@pytest.mark.parametrize(("page", "link"), _links())
def test_links_lead_somewhere(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize("command", _commands())
def test_commands_are_known(command: str) -> None:
    cli._parser().parse_args(shlex.split(command, comments=True))


def test_the_first_settings_of_the_guide_are_valid(tmp_path: Path) -> None:
    (text,) = (
        b
        for kind, b in _BLOCK.findall((TREE / "docs/deploy-systemd.md").read_text())
        if kind == "yaml"
    )
    (tmp_path / "sidecar.yaml").write_text(text)
    assert load(tmp_path).sidecar.service == yaml.safe_load(text)["service"]


@pytest.mark.parametrize("folder", ["kubernetes/overlay/counterfault", "compose/counterfault"])
def test_the_folders_that_the_guides_name_pass_the_check(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(DEPLOY / folder)]) == 0, capsys.readouterr()


def test_the_command_that_starts_an_experiment_does() -> None:
    page = (TREE / "docs/deploy-compose.md").read_text()
    edit = re.search(r"^sed -i '(.*)' (.*)$", page, re.MULTILINE)
    assert edit
    said = (TREE / edit[2]).read_text()
    _, old, new, _ = edit[1].split("/")
    changed = re.sub(old, new, said, flags=re.MULTILINE)
    assert yaml.safe_load(said)["state"] == "paused"
    assert yaml.safe_load(changed)["state"] == "running"
