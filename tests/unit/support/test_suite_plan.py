"""`make test` leaves out what `make test-slow` runs, and of twins Envoy's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import suite_plan as plan

ROOT = Path(__file__).parents[3]


def item(path: str, engine: str | None = None, *marks: str) -> Any:
    """What a test at that path is for pytest, as far as the plan looks at it."""
    return SimpleNamespace(
        path=ROOT / "tests" / path,
        callspec=SimpleNamespace(params={"engine": engine} if engine else {}),
        get_closest_marker=lambda name: name if name in marks else None,
    )


def names(of: Any) -> set[str]:
    return {mark.name for mark in plan.markers(of)}


def test_only_envoys_twins_are_left_out_and_not_where_envoy_comes_first():
    assert names(item("integration/test_grpc.py", "envoy")) == {"twin"}
    assert names(item("integration/test_grpc.py", "envoy", "primary")) == set()
    assert names(item("integration/test_grpc.py", "mitmproxy")) == set()
    assert names(item("integration/test_lifecycle.py", "envoy")) == set()
    assert names(item("unit/values/test_units.py")) == set()
    assert names(item("browser/test_page.py")) == {"deploy"}


def test_every_module_that_the_plan_names_is_there():
    for module in (*plan._ENVOY_SMOKE, *plan._SHARING):
        assert (ROOT / "tests" / f"{module}.py").is_file()
    tests = (path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))
    folders = {path.parts[0] for path in tests} - {"support"}
    assert folders == set(plan._ORDER)


def test_unit_tests_start_no_sidecar():
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        assert "Make" + "Sidecar" not in path.read_text(), path


def test_tests_of_a_module_and_an_engine_share_a_worker():
    http = "tests/conformance/test_http.py::test_a"
    assert plan.group(f"{http}[envoy-curl]") == plan.group(f"{http}b[0-envoy]")
    assert plan.group(f"{http}[envoy-curl]") != plan.group(f"{http}[mitmproxy-curl]")
    assert plan.group(f"{http}[x-]]") == plan.group(http) == "conformance/test_http"
    for test in ("reload.py::test[envoy]", "lifecycle.py::test[0-envoy]", "envoy.py::test"):
        assert plan.group(f"tests/integration/test_{test}") == "plain sidecar on envoy"


def test_slow_tests_begin_first_and_unit_tests_last():
    tests = [
        item("unit/values/test_units.py"),
        item("conformance/test_http.py"),
        item("unit/faults/test_error.py", None, "slow"),
        item("integration/test_tag.py"),
    ]
    ordered = sorted(tests, key=plan.sort_key)
    assert ordered == [tests[2], tests[3], tests[1], tests[0]]


@pytest.mark.parametrize("target", ["test", "test-unit", "test-slow", "test-deploy", "test-all"])
def test_a_target_of_the_makefile_selects_by_the_markers(target: str):
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split(f"\n{target}: install ##", 1)[1].split("\n\n", 1)[0]
    assert "$(PYTEST)" in recipe
    chosen = {
        "test-slow": "-m 'slow or twin or deploy'",
        "test-deploy": "-m 'deploy and not slow'",
        "test-all": "-m ''",
    }
    assert chosen.get(target, "$(ARGS)") in recipe
    assert '"not slow and not twin and not deploy"' in (ROOT / "pyproject.toml").read_text()
