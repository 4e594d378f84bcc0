"""WebSockets: faults of a connection, and of single messages; their order is kept."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.support.open_resources import leaves_nothing
from tests.support.programs import Sidecar, until, user
from tests.support.timing import ReleaseTimer

FAULTS: dict[str, dict[str, Any]] = {
    "upgrade": {"latency": "400ms"},
    "refused": {"error": 503},
    "closed-at-once": {"drop": "close"},
    "reset-at-once": {"drop": "reset"},
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
def connected(sidecar: Sidecar, cohort: str, path: str, run: int = 1) -> Iterator[ClientConnection]:
    headers = {"x-user-id": user(cohort, run=run)}
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


@pytest.mark.parametrize("path", ["closed-at-once", "reset-at-once"])
def test_a_drop_of_the_request_leaves_no_connection(sidecar: Sidecar, path: str) -> None:
    with pytest.raises((InvalidHandshake, OSError)), connected(sidecar, "experiment", path):
        pass
    nothing_active(sidecar)


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
    """This one ends the run; what comes after begins others."""
    with connected(sidecar, "experiment", "hour") as socket:
        socket.send("a")
        socket.send("b")
        until(lambda: sidecar.metric("counterfault_faults_active") == 2)
        with ReleaseTimer():
            sidecar.post("/api/experiments/x/stop")
            assert [socket.recv(10), socket.recv(10)] == ["a", "b"]
    nothing_active(sidecar)


def failed(sidecar: Sidecar, fault: str) -> float:
    return sidecar.metric("counterfault_faults_total", fault=fault, result="failed")


def test_what_was_open_before_the_faults_gets_them_with_its_next_message_and_loses_them(
    sidecar: Sidecar,
) -> None:
    """Open in the baseline, when nobody is harmed: its user and cohort are known by then."""
    late = {"latency": "400ms", "per": "message", "match": {"path": "/late"}}
    lost = {"drop": "hang", "per": "message", "match": {"path": "/lost"}}
    faults = [{"at": "inbound", **fault} for fault in (late, lost)]
    sidecar.experiment(run=2, baseline="3s", faults=faults)
    until(lambda: sidecar.state() == "baseline" and sidecar.acts())
    with (
        connected(sidecar, "experiment", "late", run=2) as hit,
        connected(sidecar, "control", "late", run=2) as spared,
        connected(sidecar, "experiment", "lost", run=2) as losing,
    ):
        assert max(map(round_trip, (hit, spared, losing))) < 0.4
        until(lambda: sidecar.state() == "running" and sidecar.acts())
        before = failed(sidecar, "latency") + failed(sidecar, "drop")
        assert round_trip(hit) >= 0.4
        assert round_trip(spared) < 0.4
        losing.send("nobody reads this")
        sidecar.post("/api/experiments/x/stop")
        assert max(map(round_trip, (hit, spared, losing))) < 0.4
    assert failed(sidecar, "latency") + failed(sidecar, "drop") == before


def test_what_was_open_before_the_run_gets_its_faults_as_well(
    sidecar: Sidecar, engine: str
) -> None:
    """With Envoy it has gone past the workers, and stays as it is."""
    with connected(sidecar, "experiment", "late", run=3) as hit:
        assert round_trip(hit) < 0.4
        before = failed(sidecar, "drop")
        faults: tuple[dict[str, Any], ...] = ({"latency": "400ms"}, {"drop": "hang"})
        rules = [{"at": "inbound", "per": "message", **fault} for fault in faults]
        sidecar.running(run=3, faults=rules)
        if engine == "envoy":
            assert round_trip(hit) < 0.4
            assert failed(sidecar, "drop") == before
            sidecar.post("/api/experiments/x/stop")
            return
        # Its messages are compressed with what they have in common: none may be lost.
        assert round_trip(hit) >= 0.4
        until(lambda: failed(sidecar, "drop") == before + 1)
        sidecar.post("/api/experiments/x/stop")
