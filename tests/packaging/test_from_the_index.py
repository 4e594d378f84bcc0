"""The wheel in an empty environment, with its dependencies and PyPI's proxy.py from the index."""

import subprocess
import venv
from pathlib import Path

import pytest

from tests.packaging.conftest import TREE
from tests.support.programs import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The `bin` of an environment in which the wheel was installed as a user installs it."""
    directory = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(directory, with_pip=True, symlinks=True)
    _pip(directory / "bin", "-c", TREE / "constraints.txt", wheel)
    return directory / "bin"


def test_the_demo_runs(commands: Path, tmp_path: Path) -> None:
    """To its end; whether both verdicts are as foretold is for tests/integration/test_demo.py."""
    told = _run(commands / "counterfault", "demo", cwd=tmp_path)
    assert not told.stderr
    assert "Which hypothesis held?" in told.stdout
    foretold = "Every experiment ended as foretold." in told.stdout
    assert told.returncode == (0 if foretold else 1), told.stdout


def test_proxy_py_of_pypi_and_we_leave_each_other_alone(commands: Path, tmp_path: Path) -> None:
    """Its package is imported as `proxy`, and both commands work."""
    _pip(commands, "proxy.py==2.4.10")
    where = "import proxy, counterfault.proxy as ours; print(proxy.__file__, ours.__file__)"
    theirs, ours = _run(commands / "python", "-c", where, cwd=tmp_path).stdout.split()
    assert theirs.endswith("/site-packages/proxy/__init__.py")
    assert ours.endswith("/site-packages/counterfault/proxy/__init__.py")
    assert _run(commands / "proxy", "--version", cwd=tmp_path).returncode == 0
    checked = _run(commands / "counterfault", "check", TREE / "config", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr


def _pip(commands: Path, *args: str | Path) -> None:
    """Install from the index; where there is none the test is skipped, in CI it fails."""
    told = _run(commands / "python", "-m", "pip", "install", "-q", *args, cwd=TREE)
    if told.returncode:
        unavailable(f"pip cannot install {args[-1]}: {told.stderr[-1000:]}")


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=800
    )
