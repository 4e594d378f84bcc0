"""gRPC with its own library on both sides: what calls of the experiment end with."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.support.open_resources import leaves_nothing
from tests.support.programs import Sidecar, until, user

SERVICE = "shop.Orders"
PATIENCE = 10.0
OPTIONS = [("grpc.enable_http_proxy", 0)]
REPLY = b"x" * 100_000
CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)

type Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    code: Any
    details: str
    reply: bytes | None
    trailers: Mapping[str, str]
    took: float


type Check = Callable[[Outcome], None]


def failed(code: Any, details: str = "") -> Check:
    def check(got: Outcome) -> None:
        assert (got.code, got.details, got.reply) == (code, details, None)

    return check


def cut(got: Outcome) -> None:
    assert got.code in CUT
    assert got.reply is None


def late(least: float) -> Check:
    def check(got: Outcome) -> None:
        assert (got.code, got.reply) == (grpc.StatusCode.OK, REPLY)
        assert least <= got.took < least + 0.7

    return check


def fine(got: Outcome) -> None:
    assert (got.code, got.reply) == (grpc.StatusCode.OK, REPLY)


UNAVAILABLE = {"grpc": "UNAVAILABLE", "message": "sold out – 100 %"}
# The service's methods are named like the cases.
CASES: dict[str, tuple[dict[str, Any], Check]] = {
    "Named": ({"error": UNAVAILABLE}, failed(grpc.StatusCode.UNAVAILABLE, "sold out – 100 %")),
    "Numbered": ({"error": {"grpc": 8}}, failed(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    "After": (
        {"error": {"grpc": "INTERNAL"}, "when": "after", "unsafe": True},
        failed(grpc.StatusCode.INTERNAL),
    ),
    "Late": ({"latency": "400ms"}, late(0.4)),
    "Closed": ({"drop": "close"}, cut),
    "Reset": ({"drop": "reset"}, cut),
    "Slow": ({"bandwidth": "200KB/s"}, late(0.5)),
    "Trickling": ({"slow_start": {"chunk": "10KB", "delay": "40ms"}}, late(0.4)),
    "Truncated": ({"truncate": "50KB", "unsafe": True}, cut),
    "Headed": ({"headers": {"response": {"set": {"x-new": "1"}}}}, fine),
    "Doubled": ({"duplicate": 2, "unsafe": True}, fine),
}

# The first two calls fail, and a client that tries again does not notice.
FLAKY: dict[str, Any] = {"error": UNAVAILABLE, "dose": {"first": 2}}
HUNG: dict[str, Any] = {"drop": {"mode": "hang", "hang": "1h"}}
POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.1s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRIES = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})


@dataclass(slots=True)
class World:
    sidecar: Sidecar
    channel: Any
    calls: dict[str, int]
    heard: dict[str, dict[str, Any]]
    """What came with the last call of each method."""

    def call(self, cohort: str, method: str) -> Outcome:
        who = (("x-user-id", user(cohort)),)
        start = time.monotonic()
        try:
            reply, call = self.channel.unary_unary(f"/{SERVICE}/{method}").with_call(
                b"hi", timeout=PATIENCE, metadata=who
            )
        except grpc.RpcError as e:
            reply, call = None, e
        trailers = dict(call.trailing_metadata() or ())
        took = time.monotonic() - start
        return Outcome(call.code(), call.details() or "", reply, trailers, took)

    def nothing_active(self) -> bool:
        return self.sidecar.metric("counterfault_faults_active") == 0


@contextmanager
def serving(calls: dict[str, int], heard: dict[str, dict[str, Any]]) -> Iterator[int]:
    def answer(method: str) -> Callable[[bytes, Any], bytes]:
        def handler(sent: bytes, context: Any) -> bytes:
            calls[method] = calls.get(method, 0) + 1
            heard[method] = dict(context.invocation_metadata())
            return REPLY

        return handler

    methods = {m: grpc.unary_unary_rpc_method_handler(answer(m)) for m in (*CASES, "Flaky", "Hung")}
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(grace=1).wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    calls: dict[str, int] = {}
    heard: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        port = stack.enter_context(serving(calls, heard))
        directory = tmp_path_factory.mktemp("grpc")
        sidecar = Sidecar(directory, f"http://127.0.0.1:{port}", {"engine": engine})
        stack.callback(sidecar.stop)
        sidecar.start().running(
            faults=[
                {"at": "inbound", "match": {"path": f"/{SERVICE}/{name}"}, **fault}
                for name, fault in [
                    ("Flaky", FLAKY),
                    ("Hung", HUNG),
                    *((n, f) for n, (f, _) in CASES.items()),
                ]
            ]
        )
        address = f"127.0.0.1:{sidecar.port}"
        stack.enter_context(leaves_nothing(sidecar))
        channel = stack.enter_context(grpc.insecure_channel(address, options=OPTIONS))
        yield World(sidecar, channel, calls, heard)


@pytest.mark.parametrize("name", CASES)
def test_calls_of_the_experiment_end_as_the_fault_says_and_others_as_ever(
    world: World, name: str
) -> None:
    _, check = CASES[name]
    check(world.call("experiment", name))
    start = time.monotonic()
    for cohort in ("control", "bystander"):
        fine(world.call(cohort, name))
    assert time.monotonic() - start < 0.6
    until(world.nothing_active)


def test_the_server_sees_a_doubled_call_twice_and_an_answered_one_never(world: World) -> None:
    before = dict(world.calls)
    world.call("experiment", "Doubled")
    world.call("experiment", "Named")
    until(lambda: world.calls["Doubled"] == before.get("Doubled", 0) + 2)
    assert world.calls.get("Named", 0) == before.get("Named", 0)


def test_a_call_that_hangs_ends_with_its_deadline_and_so_does_the_fault(world: World) -> None:
    with pytest.raises(grpc.RpcError) as e:
        world.channel.unary_unary(f"/{SERVICE}/Hung")(
            b"hi", timeout=0.5, metadata=(("x-user-id", user("experiment")),)
        )
    assert e.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(world.nothing_active, 5)
    assert "Hung" not in world.calls
    fine(world.call("control", "Hung"))


def test_what_a_client_tries_again_is_a_call_of_the_same_user(world: World) -> None:
    options = [*OPTIONS, ("grpc.service_config", RETRIES)]
    with grpc.insecure_channel(f"127.0.0.1:{world.sidecar.port}", options=options) as retrying:
        call = retrying.unary_unary(f"/{SERVICE}/Flaky")
        who = (("x-user-id", user("experiment")),)
        assert call(b"hi", timeout=PATIENCE, metadata=who) == REPLY
    assert world.calls["Flaky"] == 1
    assert world.heard["Flaky"]["grpc-previous-rpc-attempts"] == "2"
    assert world.heard["Flaky"]["x-counterfault"].startswith("x.experiment.")


def test_others_on_the_channel_go_at_full_speed_beside_a_slow_call(world: World) -> None:
    slow = world.channel.unary_unary(f"/{SERVICE}/Slow").future(
        b"hi", timeout=PATIENCE, metadata=(("x-user-id", user("experiment")),)
    )
    took = [world.call("control", "Slow").took for _ in range(10)]
    assert not slow.done()
    assert max(took) < 0.25
    assert slow.result() == REPLY
