"""The installed wheel works, beside another project's `proxy` too, and mypy finds its types."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from counterfault import __version__
from tests.packaging.conftest import TREE
from tests.support.programs import MakeSidecar, Sidecar

# Makes each process of the sidecar write the names and files of its modules when it gets SIGUSR2.
_TELL = """
import json, os, pathlib, signal, sys
def tell(*_):
    found = {n: m.__file__ for n, m in list(sys.modules.items()) if getattr(m, "__file__", None)}
    target = pathlib.Path(os.environ["MODULES_OF"], f"{os.getpid()}.json")
    target.with_suffix(".new").write_text(json.dumps(found))
    target.with_suffix(".new").rename(target)
signal.signal(signal.SIGUSR2, tell)
"""
_USES = """
from pathlib import Path

from counterfault import __version__
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config
from counterfault.proxy.experiments.cohorts import Cohort


def cohorts_of(directory: Path) -> list[Cohort]:
    config: Config = load(directory)
    service: str = config.sidecar.service
    return [cohort for cohort in Cohort if service and __version__]
"""


def _run(*command: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100, **options
    )


def test_the_command_is_there(python: Path, tmp_path: Path) -> None:
    for command in ([python.with_name("counterfault")], [python, "-m", "counterfault"]):
        told = _run(*command, "--version", cwd=tmp_path)
        assert told.stdout == f"counterfault {__version__}\n", told.stderr


def test_the_shipped_configuration_passes_its_check(python: Path, tmp_path: Path) -> None:
    told = _run(python.with_name("counterfault"), "check", TREE / "config", cwd=tmp_path)
    assert told.returncode == 0, told.stderr


def test_it_is_the_wheel_that_is_tested(python: Path, tmp_path: Path) -> None:
    where = "from counterfault import addons, proxy; print(addons.__file__, proxy.__file__)"
    found = _run(python, "-c", where, cwd=tmp_path).stdout.split()
    assert len(found) == 2
    assert all(Path(file).is_relative_to(python.parents[1]) for file in found)


@pytest.mark.parametrize("name", ["proxy", "addons"])
def test_it_leaves_other_projects_their_names(python: Path, tmp_path: Path, name: str) -> None:
    """As PyPI's proxy.py has `proxy`: theirs is found, and ours works."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("OF = 'theirs'\n")
    both = f"import {name}, counterfault.{name} as ours; print({name}.OF, hasattr(ours, 'OF'))"
    assert _run(python, "-c", both, cwd=tmp_path).stdout == "theirs False\n"
    shutil.rmtree(tmp_path / name)  # with what was compiled there
    missing = _run(python, "-c", f"import {name}", cwd=tmp_path)
    assert f"No module named '{name}'" in missing.stderr


@pytest.mark.slow
@pytest.mark.parametrize("installed", ["wheel", "checkout"])
def test_mypy_finds_the_types(
    request: pytest.FixtureRequest, tmp_path: Path, installed: str
) -> None:
    python = request.getfixturevalue("python") if installed == "wheel" else Path(sys.executable)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    user = tmp_path / "user.py"
    user.write_text(_USES)
    told = _run(*command, "--python-executable", python, user, cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    user.write_text(_USES.replace("service: str", "service: int"))
    told = _run(*command, "--python-executable", python, user, cwd=tmp_path)
    assert "Incompatible types in assignment" in told.stdout


def test_no_module_has_two_names(
    python: Path, make_sidecar: MakeSidecar, tmp_path: Path, until: Any
) -> None:
    """In a supervisor and its worker; for a checkout see tests/integration/test_module_names.py."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_TELL)
    sidecar = make_sidecar("http://127.0.0.1:9")
    sidecar.command = [str(python), "-m", "counterfault"]
    sidecar.environment = {"PYTHONPATH": str(tmp_path / "hook"), "MODULES_OF": str(tmp_path)}
    sidecar.start()
    try:
        for pid in _processes(sidecar):
            os.kill(pid, signal.SIGUSR2)
            found = until((tmp_path / f"{pid}.json").exists) and json.loads(
                (tmp_path / f"{pid}.json").read_text()
            )
            _assert_one_name_each(found)
    finally:
        sidecar.stop()


def _processes(sidecar: Sidecar) -> list[int]:
    """The supervisor's pid and its workers'."""
    assert sidecar.process is not None
    return [sidecar.process.pid, *sidecar.workers()]


def _assert_one_name_each(modules: dict[str, str]) -> None:
    ours = {n: os.path.realpath(file) for n, file in modules.items() if "counterfault" in file}
    names: dict[str, list[str]] = {}
    for name, file in ours.items():
        names.setdefault(file, []).append(name)
    # The module that was started is `__main__` besides.
    twice = {f: n for f, n in names.items() if len(set(n) - {"__main__"}) > 1}
    assert not twice
    assert "counterfault.proxy.values.units" in ours
    assert not [name for name in modules if name.partition(".")[0] in {"proxy", "addons"}]
