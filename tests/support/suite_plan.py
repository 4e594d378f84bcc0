"""Which tests `make test` leaves out, which share an xdist worker, and which begin first."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

_TESTS = Path(__file__).parent.parent
# `make test-deploy`: what is shipped, the page in a browser, the docs.
_DEPLOY = ("browser", "deploy", "docs", "packaging")
# The engines share nearly all that a user sees, so `make test` runs most modules on one of them.
# On Envoy too it runs these, which between them start it, reload it, put each fault into it,
# compare its answers with the upstream's and end it. `make test-all` runs every module on both.
_ENVOY_SMOKE = (
    "conformance/test_http",
    "conformance/test_tcp",
    "integration/test_closing",
    "integration/test_envoy",
    "integration/test_lifecycle",
    "integration/test_reload",
    "integration/test_tag",
    "integration/test_upstreams",
    "integration/test_verdict",
)
# Modules that share what tests/integration/conftest.py makes once: the name of their group.
_SHARING = {
    "integration/test_connections": "passthrough",
    "integration/test_envoy": "plain sidecar",
    "integration/test_lifecycle": "plain sidecar",
    "integration/test_passthrough": "passthrough",
    "integration/test_reload": "plain sidecar",
}
# The engine among a test's parameters: test_x[0-envoy-late].
_ENGINE_ID = re.compile(r"::[^\[]*\[(?:.*-)?(envoy|mitmproxy)(?:-.*)?\]$")
# What takes longest begins first, so that no xdist worker begins it when the others have ended.
_ORDER = (
    *("packaging", "deploy", "browser", "integration", "conformance"),
    *("simulate", "bench", "docs", "unit"),
)


def markers(item: pytest.Item) -> Iterator[pytest.MarkDecorator]:
    """What is known of a test by its place and its engine."""
    module, engine = _module(item), _engine(item)
    if module.split("/")[0] in _DEPLOY:
        yield pytest.mark.deploy
    if engine == "envoy" and module not in _ENVOY_SMOKE and not item.get_closest_marker("primary"):
        yield pytest.mark.twin


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Sends all tests of a module and an engine to one worker, where their fixtures are made once.

    xdist's own loadgroup would do, but under pytest 9.2 it does not see the groups: it appends them
    to an attribute that pytest no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """The name that the tests have in common which are to share a worker."""
    module = nodeid.split("::", maxsplit=1)[0].removeprefix("tests/").removesuffix(".py")
    engine = _ENGINE_ID.search(nodeid)
    shared = _SHARING.get(module, module)
    # What is for Envoy only has no parameter for it.
    name = "envoy" if module == "integration/test_envoy" else engine and engine[1]
    return f"{shared} on {name}" if name else shared


def sort_key(item: pytest.Item) -> tuple[bool, int]:
    """By which tests are sorted: slow ones first, then as the directories stand in `_ORDER`."""
    return item.get_closest_marker("slow") is None, _ORDER.index(_module(item).split("/")[0])


def _module(item: pytest.Item) -> str:
    """The path of the test's file below tests/, without its suffix."""
    return item.path.relative_to(_TESTS).with_suffix("").as_posix()


def _engine(item: pytest.Item) -> str | None:
    """The engine that the test is for, None if it is for none of its own."""
    spec = getattr(item, "callspec", None)
    return None if spec is None else spec.params.get("engine")
