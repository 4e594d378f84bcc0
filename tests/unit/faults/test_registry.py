"""Faults of other packages: found as entry points, and no trouble to anything else."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from counterfault.proxy.experiments.fault_rule import AnyFaultRule
from counterfault.proxy.faults import Fault
from counterfault.proxy.faults.base import RULE_KEYS, fault_name_problem
from counterfault.proxy.faults.registry import BUILT_IN, GROUP, KNOWN, load_faults
from tests.support import fault_package

PROGRAM = """
import json
from counterfault.proxy.config.json_schema import MODELS, schema_text
from counterfault.proxy.faults.registry import KNOWN, PROBLEMS
print(json.dumps([sorted(KNOWN), PROBLEMS, "redirect_loop" in schema_text(MODELS["experiment"])]))
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of a directory."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def found(directory: Path) -> tuple[list[str], list[str], bool]:
    """The faults there are, what is wrong with others, and whether the schema has the page's."""
    done = run(directory, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    known, problems, in_schema = json.loads(done.stdout)
    assert done.stderr.splitlines() == problems
    return known, problems, in_schema


def test_the_keys_of_a_rule_are_known_here_too() -> None:
    assert AnyFaultRule.model_fields.keys() - KNOWN.keys() == RULE_KEYS


@pytest.mark.parametrize("name", ["at", "fault", "copy", "model_config", "Loop", "a-b", "", "_x"])
def test_a_fault_cannot_have_a_name_that_means_something_else(name: str) -> None:
    assert fault_name_problem(name) is not None


def test_every_built_in_fault_has_a_good_name() -> None:
    assert [name for name in BUILT_IN if fault_name_problem(name) is not None] == []


def test_the_pages_package_offers_its_fault(tmp_path: Path) -> None:
    known, problems, in_schema = found(fault_package.install(tmp_path))
    assert (known, problems, in_schema) == (sorted([*BUILT_IN, "redirect_loop"]), [], True)


def test_the_pages_own_test_passes(tmp_path: Path) -> None:
    fault_package.install(tmp_path)
    test = tmp_path / "test_redirect_loop.py"
    done = run(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_check_knows_the_fault_and_where_its_mistakes_are(tmp_path: Path) -> None:
    fault_package.install(tmp_path)
    name, text = next((n, t) for n, t in fault_package.files().items() if n.endswith(".yaml"))
    config = tmp_path / "config"
    (config / "experiments").mkdir(parents=True)
    (config / "sidecar.yaml").write_text(
        "service: shop\nlisteners:\n"
        "  inbound: {listen: '127.0.0.1:8001', upstream: 'http://127.0.0.1:8000'}\n"
    )
    (config / name).write_text(text)
    check = run(tmp_path, "-m", "counterfault", "check", str(config))
    assert check.returncode == 0, check.stdout + check.stderr
    assert "redirect_loop 308" in check.stdout
    (config / name).write_text(text.replace("308", "200"))
    wrong = run(tmp_path, "-m", "counterfault", "check", str(config))
    assert wrong.returncode == 2
    assert "experiments/loop.yaml:8:20: faults.0.redirect_loop" in wrong.stderr


def test_what_cannot_be_loaded_is_said_and_stops_nothing_else(tmp_path: Path) -> None:
    fault_package.install(tmp_path)
    (tmp_path / "broken.py").write_text("import missing_module\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "thief.py").write_text(
        "from counterfault.proxy.faults import Fault\n"
        "class Thief(Fault, name='latency'): pass\n"
        "class Other(Fault, name='other'): pass\n"
        "NUMBER = 3\n"
    )
    faults = {
        "broken": "broken:Broken",
        "leaves": "leaves:Leaves",
        "latency": "thief:Thief",
        "misnamed": "thief:Other",
        "number": "thief:NUMBER",
        "unsafe": "thief:Other",
        "gone": "thief:Gone",
    }
    fault_package.offer(tmp_path, "bad-faults", faults)
    known, problems, _ = found(tmp_path)
    assert known == sorted([*BUILT_IN, "redirect_loop"])
    said = [problem.partition(" of package bad-faults is not available: ") for problem in problems]
    assert {name: reason for name, _, reason in said} == {
        "fault 'broken'": "ModuleNotFoundError: No module named 'missing_module'",
        "fault 'gone'": "AttributeError: module 'thief' has no attribute 'Gone'",
        "fault 'latency'": "counterfault.proxy.faults.latency has a fault of that name",
        "fault 'leaves'": "SystemExit: 3",
        "fault 'misnamed'": "thief:Other has the name 'other', not that of its entry point",
        "fault 'number'": "thief:NUMBER is no subclass of Fault",
        "fault 'unsafe'": "'unsafe' means something else in a rule",
    }


def test_the_second_of_two_packages_with_the_same_fault_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Loop(Fault, name="loop"):
        """The first one's."""

    monkeypatch.setattr(EntryPoint, "load", lambda _: Loop)
    offered = [EntryPoint("loop", f"{package}:Loop", GROUP) for package in ("b", "a")]
    loaded, problems = load_faults(offered, BUILT_IN)
    assert loaded == {"loop": Loop}
    assert problems == [f"fault 'loop' is not available: {__name__} has a fault of that name"]


def test_this_environment_offers_no_faults() -> None:
    assert not entry_points(group=GROUP)
    assert KNOWN == BUILT_IN
