"""WebSockets: faults of a connection, and of single messages; their order is kept."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from leftovers import leaves_nothing
from programs import Sidecar, until, user
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

FAULTS: dict[str, dict[str, Any]] = {
    "upgrade": {"latency": "400ms"},
    "refused": {"error": 503},
    "late": {"latency": "300ms", "per": "message"},
    "late-answers": {"latency": "300ms", "per": "message", "when": "after"},
    "jitter": {"latency": {"mean": "50ms", "jitter": "50ms"}, "per": "message"},
    "closed": {"drop": "close", "per": "message"},
    "reset": {"drop": "reset", "per": "message"},
    "lost": {"drop": "hang", "per": "message", "dose": "50%"},
    "lost-answers": {"drop": "hang", "per": "message", "when": "after", "dose": "50%"},
    "hour": {"latency": "1h", "per": "message"},
}


def talk(socket: ServerConnection) -> None:
    for message in socket:
        socket.send(message)


@contextmanager
def serving() -> Iterator[int]:
    with serve(talk, "127.0.0.1", 0, max_size=4 << 20) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.socket.getsockname()[1])
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Sidecar]:
    with ExitStack() as stack:
        port = stack.enter_context(serving())
        directory = tmp_path_factory.mktemp("websocket")
        sidecar = Sidecar(directory, f"http://127.0.0.1:{port}", {"engine": engine})
        stack.callback(sidecar.stop)
        sidecar.start().running(
            faults=[
                {"at": "inbound", "match": {"path": f"/{name}"}, **fault}
                for name, fault in FAULTS.items()
            ]
        )
        stack.enter_context(leaves_nothing(sidecar))
        yield sidecar


@contextmanager
def connected(sidecar: Sidecar, cohort: str, path: str) -> Iterator[ClientConnection]:
    headers = {"x-user-id": user(cohort)}
    url = f"ws://127.0.0.1:{sidecar.port}/{path}"
    with connect(url, additional_headers=headers, proxy=None, max_size=4 << 20) as socket:
        yield socket


def round_trip(socket: ClientConnection, message: str = "hello") -> float:
    start = time.monotonic()
    socket.send(message)
    assert socket.recv(10) == message
    return time.monotonic() - start


def nothing_active(sidecar: Sidecar) -> None:
    until(lambda: sidecar.metric("counterfault_faults_active") == 0)


@pytest.mark.parametrize("path", FAULTS)
@pytest.mark.parametrize("cohort", ["control", "bystander"])
def test_others_notice_nothing(sidecar: Sidecar, path: str, cohort: str) -> None:
    start = time.monotonic()
    with connected(sidecar, cohort, path) as socket:
        for _ in range(10):
            round_trip(socket)
    assert time.monotonic() - start < 0.3


def test_a_latency_of_the_request_delays_the_upgrade_alone(sidecar: Sidecar) -> None:
    start = time.monotonic()
    with connected(sidecar, "experiment", "upgrade") as socket:
        assert 0.4 <= time.monotonic() - start < 0.8
        assert round_trip(socket) < 0.2


def test_an_error_refuses_the_upgrade(sidecar: Sidecar) -> None:
    with pytest.raises(InvalidStatus) as e, connected(sidecar, "experiment", "refused"):
        pass
    assert e.value.response.status_code == 503


@pytest.mark.parametrize("path", ["late", "late-answers"])
def test_each_message_is_late_and_none_waits_for_another(sidecar: Sidecar, path: str) -> None:
    with connected(sidecar, "experiment", path) as socket:
        start = time.monotonic()
        for i in range(20):
            socket.send(str(i))
        assert [socket.recv(10) for _ in range(20)] == [str(i) for i in range(20)]
        assert 0.3 <= time.monotonic() - start < 0.6
        assert 0.3 <= round_trip(socket, "x" * (1 << 20)) < 0.9
    nothing_active(sidecar)


def test_messages_keep_their_order_whatever_each_of_them_waits(sidecar: Sidecar) -> None:
    sent = [f"{i} " * (i % 50) for i in range(300)]
    with connected(sidecar, "experiment", "jitter") as socket:

        def send() -> None:
            for message in sent:
                socket.send(message)

        sender = threading.Thread(target=send)
        sender.start()
        assert [socket.recv(10) for _ in sent] == sent
        sender.join(10)
    nothing_active(sidecar)


@pytest.mark.parametrize("path", ["closed", "reset"])
def test_a_drop_ends_the_connection_in_a_messages_place(sidecar: Sidecar, path: str) -> None:
    with connected(sidecar, "experiment", path) as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosed):
            socket.recv(10)
    nothing_active(sidecar)


@pytest.mark.parametrize("path", ["lost", "lost-answers"])
def test_a_message_that_hangs_is_lost_and_the_others_arrive_in_order(
    sidecar: Sidecar, path: str
) -> None:
    with connected(sidecar, "experiment", path) as socket:
        for i in range(200):
            socket.send(f"{i:04} {'the same words ' * 20}")
        got: list[int] = []
        while len(got) < 150:
            try:
                got.append(int(str(socket.recv(1))[:4]))
            except TimeoutError:
                break
        assert 60 < len(got) < 140
        assert got == sorted(set(got))
    nothing_active(sidecar)


def test_what_is_held_arrives_soon_after_the_run_has_stopped(sidecar: Sidecar) -> None:
    """The last test here: it ends the run."""
    with connected(sidecar, "experiment", "hour") as socket:
        socket.send("a")
        socket.send("b")
        until(lambda: sidecar.metric("counterfault_faults_active") == 2)
        sidecar.post("/api/experiments/x/stop")
        start = time.monotonic()
        assert [socket.recv(10), socket.recv(10)] == ["a", "b"]
        assert time.monotonic() - start < 0.25
    nothing_active(sidecar)
