"""A fault that cannot be performed lets the request pass as it is, and counts as failed."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.conformance import BODY, JSON, Ask, World, conformance_world
from tests.support.programs import until

GONE = {"json": {"pointer": "/no/where", "value": 1}}
# What the fault is, what is asked for, and what comes as if there were no fault.
CASES: dict[str, tuple[dict[str, Any], Ask, bytes]] = {
    "cut-beyond-the-end": ({"truncate": "1MB"}, Ask(), BODY),
    "cut-of-nothing": ({"truncate": "1KB"}, Ask("body", "HEAD"), b""),
    "flips-of-nothing": ({"corrupt": "50%"}, Ask("body", "HEAD"), b""),
    "no-json": ({"corrupt": GONE}, Ask(), BODY),
    "no-such-place": ({"corrupt": GONE}, Ask("json"), JSON),
    "pace-of-nothing": ({"bandwidth": {"up": "1KB/s"}}, Ask("hello"), b"hello"),
    "copy-of-too-much": (
        {"duplicate": 2, "unsafe": True},
        Ask("upload", "POST", bytes(1 << 20) + b"x"),
        b"done",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    faults = {name: fault for name, (fault, _, _) in CASES.items()}
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("failed")
        yield stack.enter_context(conformance_world(directory, engine, faults))


@pytest.mark.parametrize("protocol", ["httpx-http1", "httpx-http2"])
@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_performed_has_failed(world: World, name: str, protocol: str) -> None:
    fault, ask, body = CASES[name]
    kind = next(iter(fault))

    def counted(result: str) -> float:
        return world.faults(result, kind)

    before = {result: counted(result) for result in ("failed", "performed", "overflow")}
    got = world.ask(protocol, "experiment", f"/{name}/{ask.target}", ask)
    assert (got.status, got.body, got.broken) == (200, body, False)
    until(lambda: counted("failed") == before["failed"] + 1)
    assert [counted(r) for r in ("performed", "overflow")] == [
        before["performed"],
        before["overflow"],
    ]
    until(world.nothing_active)
