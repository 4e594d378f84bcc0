"""What the wheel and the sdist hold."""

import tarfile
import tomllib
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from counterfault import __version__
from tests.packaging.conftest import TREE


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return message_from_bytes(ZipFile(wheel).read(f"counterfault-{__version__}.dist-info/METADATA"))


def test_the_wheel_has_one_top_level_package(names: set[str]) -> None:
    """PyPI's proxy.py has a package `proxy`: one of the two would overwrite the other."""
    top = {name.partition("/")[0] for name in names}
    assert top == {"counterfault", f"counterfault-{__version__}.dist-info"}


def test_the_wheel_has_every_file_of_both_folders(names: set[str]) -> None:
    wanted = {
        f"counterfault/{path.relative_to(TREE)}"
        for folder in ("proxy", "addons")
        for path in (TREE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(wanted) > 200
    assert wanted | {"counterfault/__init__.py", "counterfault/__main__.py"} <= names


def test_the_wheel_says_that_it_has_types(names: set[str], metadata: Message) -> None:
    assert "counterfault/py.typed" in names
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_tree(
    wheel: Path, wheel_of_tree: Path
) -> None:
    assert wheel.read_bytes() == wheel_of_tree.read_bytes()


def test_no_user_is_offered_what_developing_takes(metadata: Message) -> None:
    assert metadata.get_all("Provides-Extra") == ["envoy"]
    assert not [d for d in metadata.get_all("Requires-Dist") or [] if d.startswith("pytest")]


def test_the_version_is_in_one_place(metadata: Message) -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == __version__
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_the_sdist_has_the_code_once_and_what_it_is_developed_with(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    assert {"counterfault/proxy/cli/main.py", "counterfault/addons/worker/main.py"} <= names
    assert {"pyproject.toml", "constraints.txt", "Makefile", "tests/conftest.py"} <= names
    assert not [name for name in names if name.startswith(("proxy/", "addons/", ".venv", ".git/"))]
