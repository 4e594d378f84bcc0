"""Faults × protocols: the effect for an experiment user, its absence for a control user."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from tests.support.cases import each
from tests.support.conformance import (
    BODY,
    ENGINES,
    JSON,
    LISTENERS,
    Answer,
    Ask,
    World,
    conformance_world,
)
from tests.support.programs import until

type Check = Callable[[Answer, Answer], None]

AT_ONCE = 8
# Of a busy machine, in seconds; how exact delays are is for test_distributions to say.
SLACK = 3.0
BODY_OF = Ask()
UPLOAD = Ask("upload", "POST", BODY)
SIZE = len(BODY)


def late(least: float, most: float) -> Check:
    """The same answer, after some time."""

    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.body, got.broken) == (200, plain.body, False)
        assert least <= got.took < most + SLACK

    return check


def answered(status: int, body: bytes, **headers: str) -> Check:
    """Another answer."""

    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.body, got.broken) == (status, body, False)
        assert {n: got.headers.get(n.replace("_", "-")) for n in headers} == headers

    return check


def gone(least: float = 0.0) -> Check:
    """No answer at all."""

    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.body, got.broken) == (None, b"", True)
        assert least <= got.took < least + SLACK

    return check


def cut(size: int) -> Check:
    """So many bytes of the answer, which promised more."""

    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.broken) == (200, True)
        assert got.body == plain.body[:size]

    return check


def damaged(share: float) -> Check:
    """The same length, and about this share of other bytes."""

    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.broken, len(got.body)) == (200, False, len(plain.body))
        changed = sum(a != b for a, b in zip(got.body, plain.body, strict=True)) / len(plain.body)
        assert changed == pytest.approx(share, rel=0.15)

    return check


def document(**changes: Any) -> Check:
    """JSON with other members; None: without."""

    def check(got: Answer, plain: Answer) -> None:
        wanted = {n: v for n, v in (json.loads(JSON) | changes).items() if v is not None}
        assert (got.status, got.broken, json.loads(got.body)) == (200, False, wanted)

    return check


def fields(**wanted: str | None) -> Check:
    def check(got: Answer, plain: Answer) -> None:
        assert (got.status, got.body) == (200, plain.body)
        assert {n: got.headers.get(n.replace("_", "-")) for n in wanted} == wanted

    return check


def same(got: Answer, plain: Answer) -> None:
    assert (got.status, got.body, got.broken) == (200, plain.body, False)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault as YAML has it, a request, and what becomes of it."""

    fault: Mapping[str, Any]
    check: Check
    ask: Ask = BODY_OF
    seen: int | None = None
    """How often the upstream sees the request."""
    least: float = 0.0
    """Seconds that the fault takes; for others it takes less."""


def waits(fault: Mapping[str, Any], least: float, most: float, ask: Ask = BODY_OF) -> Case:
    """A fault that is all about time."""
    return Case(fault, late(least, most), ask, least=least)


PACED = SIZE / 400e3
CASES: dict[str, Case] = {
    "latency": waits({"latency": "400ms"}, 0.4, 0.4),
    "latency-after": waits({"latency": "400ms", "when": "after"}, 0.4, 0.4),
    "latency-jitter": waits({"latency": {"mean": "400ms", "jitter": "50ms"}}, 0.35, 0.45),
    "latency-recorded": waits({"latency": {"recorded": "slow.csv"}}, 0.4, 0.5),
    "latency-buckets": waits({"latency": {"recorded": "buckets.csv"}}, 0.3, 0.5),
    "error": Case(
        {"error": {"status": 503, "body": "sorry", "headers": {"retry-after": "7"}}},
        answered(503, b"sorry", retry_after="7"),
        seen=0,
    ),
    "error-after": Case({"error": 500, "when": "after"}, answered(500, b""), seen=1),
    "error-file": Case(
        {"error": {"status": 502, "body_file": "page.html"}}, answered(502, b"<h1>gone</h1>")
    ),
    "error-grpc": Case(
        {"error": {"grpc": "UNAVAILABLE", "message": "no"}}, answered(503, b"no"), seen=0
    ),
    "drop-close": Case({"drop": "close"}, gone(), seen=0),
    "drop-reset": Case({"drop": "reset"}, gone(), seen=0),
    "drop-hang": Case({"drop": {"mode": "hang", "hang": "600ms"}}, gone(0.6), seen=0, least=0.6),
    "drop-after": Case({"drop": "reset", "when": "after"}, gone(), seen=1),
    "bandwidth-down": waits({"bandwidth": "400KB/s"}, PACED, PACED),
    "bandwidth-up": waits({"bandwidth": {"up": "400KB/s"}}, PACED, PACED, UPLOAD),
    "bandwidth-chunked": waits({"bandwidth": "3.2Mbit/s"}, PACED, PACED, Ask("chunked")),
    "slow-start": waits({"slow_start": {"chunk": "10KB", "delay": "20ms"}}, 0.41, 0.41),
    "truncate-after": Case({"truncate": "10KB"}, cut(10_000), seen=1),
    "truncate-share": Case({"truncate": {"share": "50%"}}, cut(SIZE // 2)),
    "truncate-nothing": Case({"truncate": {"share": "0%"}}, cut(0)),
    "truncate-chunked": Case({"truncate": "10KB"}, cut(10_000), Ask("chunked")),
    "truncate-chunked-share": Case({"truncate": {"share": "25%"}}, cut(SIZE // 4), Ask("chunked")),
    "corrupt-bytes": Case({"corrupt": "5%"}, damaged(0.05)),
    "corrupt-chunked": Case({"corrupt": {"bytes": "100%"}}, damaged(1.0), Ask("chunked")),
    "corrupt-json": Case(
        {"corrupt": {"json": {"pointer": "/price", "value": -1}}}, document(price=-1), Ask("json")
    ),
    "corrupt-json-remove": Case(
        {"corrupt": {"json": {"pointer": "/tags", "remove": True}}},
        document(tags=None),
        Ask("json"),
    ),
    "corrupt-json-deep": Case(
        {"corrupt": {"json": {"pointer": "/stock/a~1b", "value": {"x": [None]}}}},
        document(stock={"here": 3, "a/b": {"x": [None]}}),
        Ask("json"),
    ),
    "corrupt-body": Case({"corrupt": {"body": "nonsense"}}, answered(200, b"nonsense"), seen=1),
    "headers-request": Case(
        {"headers": {"request": {"set": {"x-added": "yes"}, "remove": ["X-Gone"]}}},
        fields(x_added="yes", x_gone=None),
        Ask("seen"),
    ),
    "headers-response": Case(
        {"headers": {"response": {"set": {"x-new": "1"}, "remove": "x-cache"}}},
        fields(x_new="1", x_cache=None),
        Ask("seen"),
    ),
    "duplicate": Case({"duplicate": 2, "unsafe": True}, same, Ask("seen"), seen=2),
    "duplicate-post": Case({"duplicate": 3, "unsafe": True}, same, UPLOAD, seen=3),
}
FILES = {
    "slow.csv": b"# seconds, or with a unit\n0.4\n400ms\n\n0.5\n",
    "buckets.csv": b"le,count\n0.3,0\n0.4,10\n0.5,20\n+Inf,20\n",
    "page.html": b"<h1>gone</h1>",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What clients of one protocol saw who asked for all of it at the same time."""

    world: World
    protocol: str
    answers: Mapping[tuple[str, str], Answer]
    """By case and cohort."""

    def seen(self, name: str, cohort: str) -> int:
        """How often the upstream has seen that request."""
        return self.world.seen(_path(name, self.protocol, cohort))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    faults = {name: case.fault for name, case in CASES.items()}
    with conformance_world(tmp_path_factory.mktemp("http"), engine, faults, FILES) as found:
        yield found


@pytest.fixture(scope="module", params=LISTENERS)
def asked(world: World, request: pytest.FixtureRequest) -> Asked:
    """Nearly all that a fault costs here is waiting, so many wait at once."""
    protocol = str(request.param)
    wanted = [
        (n, c) for n, c in product(CASES, ("experiment", "control")) if not _refuses(world, n)
    ]

    def ask(name: str, cohort: str) -> Answer:
        return world.ask(protocol, cohort, _path(name, protocol, cohort), CASES[name].ask)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda each: ask(*each), wanted))
    return Asked(world, protocol, dict(zip(wanted, answers, strict=True)))


@pytest.mark.timeout(300)
@each("name", CASES)
def test_a_fault_is_for_the_experiment_and_for_nobody_else(asked: Asked, name: str) -> None:
    case = CASES[name]
    if _refuses(asked.world, name):
        pytest.skip(f"{asked.world.engine} refuses it")
    plain = asked.world.direct(case.ask)
    assert (plain.status, plain.broken) == (200, False)
    got, spared = (asked.answers[name, cohort] for cohort in ("experiment", "control"))
    case.check(got, plain)
    assert (spared.status, spared.body, spared.broken) == (200, plain.body, False)
    assert _told(spared) == _told(plain)
    assert case.least == 0 or spared.took < case.least
    until(lambda: asked.seen(name, "control") >= 1)
    assert asked.seen(name, "control") == 1
    if (wanted := case.seen) is not None:
        until(lambda: asked.seen(name, "experiment") >= wanted)
        assert asked.seen(name, "experiment") == wanted


def test_nothing_is_left_behind(asked: Asked) -> None:
    asked.world.settle()


def _refuses(world: World, name: str) -> bool:
    return name.partition("-")[0] in ENGINES[world.engine]


def _path(name: str, protocol: str, cohort: str) -> str:
    return f"/{name}/{CASES[name].ask.target}?{protocol}.{cohort}"


def _told(answer: Answer) -> dict[str, str]:
    """The headers that say something of the answer."""
    framing = ("connection", "keep-alive", "transfer-encoding", "date")
    return {name: value for name, value in answer.headers.items() if name not in framing}
