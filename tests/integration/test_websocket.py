"""WebSockets and other upgrades: whatever follows a 101 is passed on as it is."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.support.cases import each
from tests.support.http1_wire import connect as connect_to
from tests.support.http1_wire import read_all, read_answer, read_head, scripted
from tests.support.passthrough_sidecar import PEOPLE, each_person, lines, memory
from tests.support.programs import Sidecar, free_port, until, user

MEGA = 1 << 20


def talk(socket: ServerConnection) -> None:
    """Echo; or, told so by the path, do something else first."""
    match socket.request.path if socket.request else "":
        case "/close":
            socket.close(4321, "enough of you")
        case "/greet":
            socket.send("hello")
        case "/fragments":
            socket.send(["one ", "two ", "three"])
        case "/headers":
            socket.send(str(socket.request.headers) if socket.request else "")
        case "/fragments-in":
            for _ in range(2):
                socket.send("|".join(str(fragment) for fragment in socket.recv_streaming()))
    for message in socket:
        socket.send(message)


def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("chat") if "chat" in offered else None


@contextmanager
def serving() -> Iterator[int]:
    with serve(talk, "127.0.0.1", 0, select_subprotocol=choose, max_size=4 * MEGA) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield port_of(server)
        server.shutdown()
        thread.join(10)


def port_of(server: Server) -> int:
    return int(server.socket.getsockname()[1])


def swap(sock: socket.socket) -> None:
    """Switch to a protocol of no name, in which the server begins."""
    read_head(sock)
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nyou?"
    )
    data = sock.recv(100)
    sock.sendall(data[::-1])


@dataclass(frozen=True, slots=True)
class World:
    """A sidecar whose listeners `inbound` and `counted` lead to WebSockets."""

    engine: str
    sidecar: Sidecar

    def port(self, listener: str) -> int:
        return int(self.sidecar.settings["listeners"][listener]["listen"].rpartition(":")[2])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    with serving() as port, scripted(swap) as swapping:
        websocket = f"http://127.0.0.1:{port}"
        listeners = {
            name: {"listen": f"127.0.0.1:{free_port()}", "upstream": url}
            for name, url in (("counted", websocket), ("other", swapping.url))
        }
        directory = tmp_path_factory.mktemp("websocket")
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory, websocket, settings)
        with ExitStack() as stack:
            stack.callback(sidecar.stop)
            faults = [
                {"at": "inbound", "error": 503, "match": {"path": "/faulty"}},
                {"at": "inbound", "latency": "1ms", "per": "message", "match": {"path": "/each"}},
            ]
            sidecar.start().running(faults=faults)
            yield World(engine, sidecar)
            assert sidecar.metric("counterfault_internal_errors_total") == 0


@contextmanager
def connected(
    world: World, person: dict[str, str], path: str = "/", listener: str = "inbound", **more: Any
) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{world.port(listener)}{path}"
    options = {"max_size": 4 * MEGA, "proxy": None, **more}
    with connect(url, additional_headers=person, **options) as socket:
        yield socket


@each("message", ["text, grüße, 你好", b"\x00\x01\xff", "", b""])
@each_person
def test_messages_come_back_as_they_are(world: World, person: dict[str, str], message: str | bytes):
    with connected(world, person) as socket:
        socket.send(message)
        assert socket.recv(10) == message


@each("compression", ["deflate", None])
@each_person
def test_a_megabyte_passes_compressed_or_not(
    world: World, person: dict[str, str], compression: str | None
):
    with connected(world, person, compression=compression) as socket:
        names = [e.name for e in socket.protocol.extensions]
        assert names == (["permessage-deflate"] if compression else [])
        for message in ("compressible " * (MEGA // 13), bytes(range(256)) * (MEGA // 256)):
            socket.send(message)
            assert socket.recv(10) == message


@each_person
def test_fragments_stay_fragments(world: World, person: dict[str, str]):
    with connected(world, person, "/fragments") as socket:
        assert list(socket.recv_streaming()) == ["one ", "two ", "three", ""]
    with connected(world, person, "/fragments-in") as socket:
        socket.send(["a", "b", "c"])
        assert socket.recv(10) == "a|b|c|"
        socket.send("whole")
        assert socket.recv(10) == "whole"


@each_person
def test_pings_are_answered_by_the_other_end(world: World, person: dict[str, str]):
    with connected(world, person, ping_interval=None) as socket:
        assert socket.ping("are you there").wait(10)


@each_person
def test_the_server_may_speak_first(world: World, person: dict[str, str]):
    with connected(world, person, "/greet") as socket:
        assert socket.recv(10) == "hello"


@each_person
def test_the_close_code_and_its_reason_pass_to_the_client(world: World, person: dict[str, str]):
    with connected(world, person, "/close") as socket, pytest.raises(ConnectionClosedError) as e:
        socket.recv(10)
    assert e.value.rcvd is not None
    assert (e.value.rcvd.code, e.value.rcvd.reason) == (4321, "enough of you")


@each_person
def test_the_client_may_close(world: World, person: dict[str, str]):
    with connected(world, person) as socket:
        socket.close(1000, "bye")
        with pytest.raises(ConnectionClosedOK):
            socket.recv(10)


@each_person
def test_many_messages_keep_their_order(world: World, person: dict[str, str]):
    with connected(world, person) as socket:

        def send() -> None:
            for i in range(3000):
                socket.send(str(i))

        sender = threading.Thread(target=send)
        sender.start()
        assert [socket.recv(10) for _ in range(3000)] == [str(i) for i in range(3000)]
        sender.join(10)


@each("cohort", ["experiment", "control"])
def test_messages_are_not_kept(world: World, cohort: str):
    """Those that a fault may delay, each by itself, no more than others."""
    message = bytes(2 * MEGA)
    with connected(world, {"x-user-id": user(cohort)}, "/each", compression=None) as socket:
        before = memory(world.sidecar, "VmRSS")
        for _ in range(48):
            socket.send(message)
            assert len(socket.recv(10)) == len(message)
        assert memory(world.sidecar, "VmRSS") < before + 32 * MEGA


@each_person
def test_the_subprotocol_is_negotiated_end_to_end(world: World, person: dict[str, str]):
    with connected(world, person, subprotocols=["other", "chat"]) as socket:
        assert socket.subprotocol == "chat"


@each_person
def test_the_tag_is_on_the_upgrade_of_the_enrolled_only(world: World, person: dict[str, str]):
    with connected(world, person, "/headers") as socket:
        tagged = "x-counterfault: x.control." in str(socket.recv(10)).lower()
    assert tagged == (person is PEOPLE["control"])


def test_a_fault_answers_the_upgrade(world: World):
    victim = {"x-user-id": user("experiment")}
    with pytest.raises(InvalidStatus) as e, connected(world, victim, "/faulty"):
        pass
    assert e.value.response.status_code == 503
    with connected(world, victim) as socket:
        socket.send("unharmed elsewhere")
        assert socket.recv(10) == "unharmed elsewhere"


@each("cohort", ["control", "bystander"])
def test_an_upgrade_is_counted_once_as_soon_as_it_is_made(world: World, cohort: str):
    def counted(**labels: str) -> float:
        labels |= {"listener": "counted", "cohort": cohort}
        return world.sidecar.metric("counterfault_requests_total", **labels)

    def reached(number: int) -> bool:
        return counted(code="1xx") == number

    for number in (1, 2):
        with connected(world, PEOPLE[cohort], listener="counted") as socket:
            until(partial(reached, number))
            socket.send("x")
            assert socket.recv(10) == "x"
    assert counted() == 2
    durations = "counterfault_request_duration_seconds_count"
    until(lambda: world.sidecar.metric(durations, listener="counted", cohort=cohort) == 2)


@each("protocol", [b"x", b"tcp", b"SPDY/3.1"])
@each_person
def test_any_other_protocol_passes_too(world: World, person: dict[str, str], protocol: bytes):
    with connect_to(world.port("other")) as sock:
        upgrade = b"Connection: upgrade\r\nUpgrade: %s\r\n%s" % (protocol, lines(person))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n%s\r\n" % upgrade)
        answer = read_answer(sock)
        if world.engine == "envoy" and protocol == b"x":  # it passes those that it knows
            assert answer.status == 403
            return
        assert answer.status == 101
        assert sock.recv(4) == b"you?"
        sock.sendall(b"\r\n\x00me")
        assert read_all(sock) == b"em\x00\n\r"
