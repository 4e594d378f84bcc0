"""gRPC with its own library on both sides: bytes in, bytes out, through cleartext HTTP/2."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tests.support.cases import each
from tests.support.passthrough_sidecar import PEOPLE, VICTIM
from tests.support.programs import Sidecar, free_port, until

SERVICE = "shop.Orders"
# Longer than any call here takes, shorter than a test may.
PATIENCE = 10.0
# A proxy that the environment names is not for us.
OPTIONS = [("grpc.enable_http_proxy", 0)]
# What a call ends with when its stream is reset; which of them is gRPC's affair.
CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
INTERNAL = grpc.StatusCode.INTERNAL
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: many frames, several windows
FAULTS = [
    {"at": "inbound", "drop": "close", "match": {"path": f"/{SERVICE}/Cut"}},
    {"at": "inbound", "error": 503, "match": {"path": f"/{SERVICE}/Refused"}},
    {"at": "inbound", "latency": "400ms", "match": {"path": f"/{SERVICE}/Late"}},
    {"at": "stubborn", "drop": "hang", "match": {"path": f"/{SERVICE}/Silent"}},
]

type Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(slots=True)
class Orders:
    """The service's methods, and what they have seen."""

    waiting: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def echo(self, sent: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-last", "9"), ("x-sum-bin", b"\xfe\x01")))
        return sent

    def told(self, _: bytes, context: Any) -> bytes:
        """What metadata arrived, one entry a line."""
        lines = (f"{key}: {value!r}" for key, value in context.invocation_metadata())
        return "\n".join(lines).encode()

    def fail(self, sent: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-why", "empty"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no {sent.decode()} – not today")
        return b""

    def wait(self, _: bytes, context: Any) -> bytes:
        """Until the client has given up."""
        gone = threading.Event()
        listening = context.add_callback(gone.set)
        self.waiting.set()
        if not listening or gone.wait(PATIENCE):
            self.cancelled.set()
        return b""

    def count(self, sent: bytes, _: Any) -> Iterator[bytes]:
        yield from (b"%d" % i for i in range(int(sent)))

    def count_and_fail(self, sent: bytes, context: Any) -> Iterator[bytes]:
        yield from self.count(sent, context)
        context.abort(grpc.StatusCode.DATA_LOSS, "that was all")

    def join(self, sent: Iterator[bytes], _: Any) -> bytes:
        return b",".join(sent)

    def mirror(self, sent: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for message in sent:
            yield message[::-1]

    def methods(self) -> dict[str, Any]:
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            **dict.fromkeys(("Echo", "Cut", "Refused", "Late", "Silent"), one(self.echo)),
            "Told": one(self.told),
            "Fail": one(self.fail),
            "Wait": one(self.wait),
            "Count": many(self.count),
            "CountAndFail": many(self.count_and_fail),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Mirror": grpc.stream_stream_rpc_method_handler(self.mirror),
        }


@contextmanager
def serving(orders: Orders) -> Iterator[int]:
    """The port of a real gRPC server."""
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        handlers = grpc.method_handlers_generic_handler(SERVICE, orders.methods())
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(grace=1).wait()


@dataclass(frozen=True, slots=True)
class World:
    """A sidecar in front of the service; `dead` leads nowhere."""

    engine: str
    sidecar: Sidecar
    orders: Orders
    channel: Any
    stubborn: Any
    dead: Any


def channel(address: str) -> Any:
    return grpc.insecure_channel(address, options=OPTIONS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    orders = Orders()
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{stack.enter_context(serving(orders))}"
        listeners = {
            "stubborn": {"listen": f"127.0.0.1:{free_port()}", "upstream": url},
            "dead": {
                "listen": f"127.0.0.1:{free_port()}",
                "upstream": f"http://127.0.0.1:{free_port()}",
            },
        }
        directory = tmp_path_factory.mktemp("grpc")
        sidecar = Sidecar(directory, url, {"engine": engine, "listeners": listeners})
        stack.callback(sidecar.stop)
        sidecar.start().running(faults=FAULTS)
        inbound, stubborn, dead = (
            stack.enter_context(channel(sidecar.settings["listeners"][name]["listen"]))
            for name in ("inbound", "stubborn", "dead")
        )
        yield World(engine, sidecar, orders, inbound, stubborn, dead)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def metadata(headers: dict[str, str]) -> Metadata:
    return tuple(headers.items())


PERSONS = {name: metadata(headers) for name, headers in (PEOPLE | {"experiment": VICTIM}).items()}


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


def ask(channel: Any, method: str, person: Metadata, sent: bytes = b"hi") -> tuple[bytes, Any]:
    """A unary call's answer, and the call with its metadata."""
    answer, call = channel.unary_unary(path(method)).with_call(
        sent, timeout=PATIENCE, metadata=person
    )
    return answer, call


# --- what everybody's calls are like, whether they are enrolled or not


@each("sent", [b"", b"\x00\xff", LARGE])
@each("person", PERSONS.values(), ids=PERSONS)
def test_a_unary_call_is_answered(world: World, person: Metadata, sent: bytes) -> None:
    answer, call = ask(world.channel, "Echo", person, sent)
    assert (answer, call.code()) == (sent, grpc.StatusCode.OK)


@each("person", PERSONS.values(), ids=PERSONS)
def test_metadata_and_trailers_pass_both_ways(world: World, person: Metadata) -> None:
    own: Metadata = (("x-plain", "yes"), ("x-twice", "a"), ("x-twice", "b"), ("x-blob-bin", b"\0"))
    told, _ = ask(world.channel, "Told", (*own, *person))
    for line in (b"x-plain: 'yes'", b"x-twice: 'a'", b"x-twice: 'b'", rb"x-blob-bin: b'\x00'"):
        assert line in told.splitlines()
    _, call = ask(world.channel, "Echo", person)
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (first["x-first"], first["x-raw-bin"]) == ("1", b"\x00\xff")
    assert (last["x-last"], last["x-sum-bin"]) == ("9", b"\xfe\x01")


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_server_streams(world: World, person: Metadata) -> None:
    got = world.channel.unary_stream(path("Count"))(b"500", timeout=PATIENCE, metadata=person)
    assert list(got) == [b"%d" % i for i in range(500)]


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_client_streams(world: World, person: Metadata) -> None:
    sent = [b"%d" % i for i in range(500)]
    join = world.channel.stream_unary(path("Join"))
    assert join(iter(sent), timeout=PATIENCE, metadata=person) == b",".join(sent)


@each("person", PERSONS.values(), ids=PERSONS)
def test_both_stream_in_turns(world: World, person: Metadata) -> None:
    """The next message is sent only once the one before has come back."""
    back = threading.Semaphore(1)

    def messages() -> Iterator[bytes]:
        for i in range(50):
            assert back.acquire(timeout=PATIENCE)
            yield b"no %d" % i

    got = []
    for message in world.channel.stream_stream(path("Mirror"))(
        messages(), timeout=PATIENCE, metadata=person
    ):
        got.append(message[::-1])
        back.release()
    assert got == [b"no %d" % i for i in range(50)]


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_status_passes_with_its_message_and_trailers(world: World, person: Metadata) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        ask(world.channel, "Fail", person, b"stock")
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "no stock – not today"
    assert dict(failed.value.trailing_metadata())["x-why"] == "empty"


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_stream_may_fail_after_its_messages(world: World, person: Metadata) -> None:
    stream = world.channel.unary_stream(path("CountAndFail"))
    got = []
    with pytest.raises(grpc.RpcError) as failed:
        got.extend(stream(b"0", timeout=PATIENCE, metadata=person))
    assert failed.value.code() == grpc.StatusCode.DATA_LOSS
    call = stream(b"3", timeout=PATIENCE, metadata=person)
    assert [next(call) for _ in range(3)] == [b"0", b"1", b"2"]
    with pytest.raises(grpc.RpcError, match="that was all"):
        next(call)


@each("person", PERSONS.values(), ids=PERSONS)
def test_an_unknown_method_is_unimplemented(world: World, person: Metadata) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        ask(world.channel, "Nothing", person)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_deadline_is_known_to_the_server_and_cancels_its_work(
    world: World, person: Metadata
) -> None:
    world.orders.cancelled.clear()
    with pytest.raises(grpc.RpcError) as failed:
        world.channel.unary_unary(path("Wait"))(b"", timeout=0.2, metadata=person)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert world.orders.cancelled.wait(PATIENCE)


@each("person", PERSONS.values(), ids=PERSONS)
def test_a_cancelled_call_is_cancelled_upstream(world: World, person: Metadata) -> None:
    """Long before its deadline."""
    world.orders.waiting.clear()
    world.orders.cancelled.clear()
    call = world.channel.unary_unary(path("Wait")).future(b"", timeout=60, metadata=person)
    assert world.orders.waiting.wait(PATIENCE)
    call.cancel()
    assert world.orders.cancelled.wait(PATIENCE)


def test_many_calls_share_one_channel(world: World) -> None:
    people = [metadata(headers) for headers in (*PEOPLE.values(), VICTIM)]
    echo = world.channel.unary_unary(path("Echo"))
    calls = [
        (b"%d" % i, echo.future(b"%d" % i, timeout=PATIENCE, metadata=people[i % len(people)]))
        for i in range(200)
    ]
    assert all(call.result() == sent for sent, call in calls)


# --- the enrolled


def test_the_tag_reaches_the_server_as_metadata(world: World) -> None:
    told = {name: ask(world.channel, "Told", metadata(who))[0] for name, who in PEOPLE.items()}
    enrolled, _ = ask(world.channel, "Told", metadata(VICTIM))
    assert b"x-counterfault: 'x.experiment." in enrolled
    assert b"x-counterfault: 'x.control." in told["control"]
    assert b"x-counterfault" not in told["bystander"] + told["nobody"]


def test_a_drop_cuts_the_calls_of_the_experiment_alone(world: World) -> None:
    """Others on the same channel notice nothing, those under way neither."""
    watching = world.channel.unary_stream(path("Count"))(b"2000", timeout=PATIENCE)
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as cut:
            ask(world.channel, "Cut", metadata(VICTIM))
        assert cut.value.code() in (*CUT, INTERNAL)
        for who in PEOPLE.values():
            assert ask(world.channel, "Cut", metadata(who))[0] == b"hi"
    assert sum(1 for _ in watching) == 2000


def test_a_cut_call_is_unavailable(world: World) -> None:
    """What clients retry, as they would if the connection were cut; INTERNAL they do not.

    Envoy cannot say why it resets a stream.
    """
    with pytest.raises(grpc.RpcError) as cut:
        ask(world.channel, "Cut", metadata(VICTIM))
    assert cut.value.code() in ((INTERNAL,) if world.engine == "envoy" else CUT)


def test_an_http_error_is_a_status_of_grpc(world: World) -> None:
    """As https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md has it."""
    with pytest.raises(grpc.RpcError) as failed:
        ask(world.channel, "Refused", metadata(VICTIM))
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    assert ask(world.channel, "Refused", metadata(PEOPLE["control"]))[0] == b"hi"


def test_a_latency_past_the_deadline_exceeds_it(world: World) -> None:
    late = world.channel.unary_unary(path("Late"))
    with pytest.raises(grpc.RpcError) as failed:
        late(b"hi", timeout=0.2, metadata=metadata(VICTIM))
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert late(b"hi", timeout=PATIENCE, metadata=metadata(VICTIM)) == b"hi"
    until(lambda: world.sidecar.metric("counterfault_faults_active") == 0)


def test_a_client_that_gives_up_ends_a_hang(world: World) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        world.stubborn.unary_unary(path("Silent"))(b"", timeout=0.3, metadata=metadata(VICTIM))
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: world.sidecar.metric("counterfault_faults_active") == 0)


@each("person", PERSONS.values(), ids=PERSONS)
def test_an_upstream_that_is_away_is_unavailable(world: World, person: Metadata) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        ask(world.dead, "Echo", person)
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
