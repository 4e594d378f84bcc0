"""What a fault holds: it is bounded, hinders nobody else, and is let go when the fault ends."""

import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.fresh_run import Runs
from tests.support.http1_wire import connect, read_head, scripted
from tests.support.http2_wire import Peer
from tests.support.open_resources import assert_nothing_left, leaves_nothing, open_when_idle
from tests.support.passthrough_sidecar import MEGA, digest, memory
from tests.support.programs import MakeNginx, MakeSidecar, Nginx, Sidecar, free_port, until
from tests.support.timing import ReleaseTimer

BIG = 32 * MEGA
MIDDLE = 6 * MEGA
RULES: dict[str, dict[str, Any]] = {
    "slow": {"bandwidth": "1MB/s"},
    "slower": {"bandwidth": "20KB/s"},
    "middle": {"at": "h2c", "bandwidth": "20KB/s"},
    "trickle": {"slow_start": {"chunk": "1KB", "delay": "60s"}},
    "upload": {"at": "reading", "bandwidth": {"up": "20KB/s"}},
    "held": {"at": "reading", "drop": {"mode": "hang", "hang": "1h"}},
    "whole": {"corrupt": {"json": {"pointer": "/a", "value": 1}}},
}
FAULTS = [{"match": {"path": f"/{n}"}, **rule, "unsafe": True} for n, rule in RULES.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Runs]:
    directory = tmp_path_factory.mktemp("release")
    h2c = free_port()
    for name, size in (("big", BIG), ("middle", MIDDLE)):
        with (directory / name).open("wb") as file:
            file.truncate(size)
    conf = f"listen 127.0.0.1:{h2c} http2; location = /middle {{ alias {directory}/middle; }}"
    conf += f"location ~ . {{ alias {directory}/big; }}"
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", conf)
        stack.callback(nginx.stop)
        reading = stack.enter_context(scripted(digest))
        h2c_url = f"http://127.0.0.1:{h2c}"
        upstreams = {"inbound": nginx.url, "h2c": h2c_url, "reading": reading.url}
        listeners = {
            n: {"listen": f"127.0.0.1:{free_port()}", "upstream": u} for n, u in upstreams.items()
        }
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        runs = Runs(sidecar.start())
        runs.begin(*FAULTS)  # with Envoy, for workers to be there
        runs.stop()
        stack.enter_context(leaves_nothing(sidecar))
        yield runs


@pytest.fixture
def world(world: Runs) -> Runs:
    world.begin(*FAULTS)
    return world


def begin(world: Runs, path: str, length: int = 0) -> socket.socket:
    """A request whose answer, or whose body, is still to come."""
    sock = connect(world.port("reading" if length else "inbound"))
    who, method = world.user(), "POST" if length else "GET"
    more = f"Content-Length: {length}\r\n"
    said = f"{method} /{path} HTTP/1.1\r\nHost: a\r\nX-User-Id: {who}\r\n{more}\r\n"
    sock.sendall(said.encode())
    return sock


def received(sock: socket.socket, seconds: float) -> int:
    """Bytes that come in so many seconds."""
    end, size = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            size += len(sock.recv(1 << 20))
        except TimeoutError:
            break
    return size


@pytest.mark.parametrize("path", ["slower", "trickle"])
def test_the_end_of_a_run_lets_a_paced_answer_go(world: Runs, path: str) -> None:
    with begin(world, path) as sock:
        read_head(sock)
        until(lambda: world.active() == 1)
        assert received(sock, 0.5) < 30_000
        sock.settimeout(5)
        size = 0
        with ReleaseTimer():
            world.stop()
            while size < MEGA:
                size += len(sock.recv(1 << 20))
        until(lambda: world.active() == 0)
        while size < BIG - 100_000:
            size += len(sock.recv(1 << 20))


def test_a_client_that_leaves_a_paced_answer_ends_the_fault(world: Runs) -> None:
    sock = begin(world, "trickle")
    read_head(sock)
    until(lambda: world.active() == 1)
    with ReleaseTimer():
        sock.close()
        until(lambda: world.active() == 0)


# More than is read of a request that waits, so that its connection is not read any more.
PART = 300_000
LINGER_0 = struct.pack("ii", 1, 0)


@pytest.mark.parametrize("path", ["upload", "held"])
@pytest.mark.parametrize("rudely", [False, True], ids=["closed", "reset"])
def test_a_client_that_leaves_amid_its_upload_ends_the_fault(
    world: Runs, path: str, rudely: bool
) -> None:
    sock = begin(world, path, BIG)
    sock.sendall(b"x" * PART)
    until(lambda: world.active() == 1)
    time.sleep(0.1)  # until what is sent has been read as far as it will be
    assert world.active() == 1
    if rudely:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    with ReleaseTimer():
        sock.close()
        until(lambda: world.active() == 0)


def test_a_paced_answer_does_not_fill_the_memory(world: Runs) -> None:
    before = memory(world.sidecar, "VmRSS")
    with begin(world, "slow") as sock:
        size = received(sock, 2.0)
        assert 1.6e6 < size < 2.4e6
        assert memory(world.sidecar, "VmRSS") - before < 12 * MEGA


def test_a_paced_upload_makes_its_client_wait(world: Runs) -> None:
    before = memory(world.sidecar, "VmRSS")
    with begin(world, "upload", BIG) as sock:
        sock.settimeout(0.5)
        sent = 0
        try:
            while sent < BIG:
                sent += sock.send(b"x" * 65536)
        except TimeoutError:
            pass
        assert sent < 16 * MEGA
        assert memory(world.sidecar, "VmRSS") - before < 12 * MEGA


def test_an_answer_too_long_to_change_passes_as_it_is_and_has_failed(world: Runs) -> None:
    with begin(world, "whole") as sock:
        assert b" 200 " in read_head(sock)
        size = 0
        while size < BIG:
            size += len(sock.recv(1 << 20))
    until(lambda: world.faults(fault="corrupt", result="failed") == 1)


def test_a_sidecar_that_is_told_to_end_lets_go_of_what_it_holds(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """Envoy waits for the first by itself; for the second it needs a worker."""
    nginx = make_nginx('location / { return 200 "hello"; }')
    after = {"listen": f"127.0.0.1:{free_port()}", "upstream": nginx.url}
    sidecar = make_sidecar(nginx.url, engine=engine, listeners={"after": after}).start()
    hang = {"drop": {"mode": "hang", "hang": "1h"}}
    sidecar.running(
        faults=[
            {"at": "inbound", **hang},
            {"at": "after", **hang, "when": "after"},
            {"at": "after", **hang, "when": "after"},  # it has no part in what is over already
        ]
    )
    runs = Runs(sidecar)
    said = f"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id: {runs.user()}\r\n\r\n".encode()
    with connect(sidecar.port) as one, connect(runs.port("after")) as other:
        for sock in (one, other):
            sock.sendall(said)
        until(lambda: runs.active() == 2)
        assert sidecar.process is not None
        with ReleaseTimer():
            sidecar.process.send_signal(signal.SIGTERM)
            assert all(b" 200 " in read_head(sock) for sock in (one, other))
    # Of `limits.drain`, 30 s, nothing is left to wait for.
    assert sidecar.process.wait(10) == 0
    sidecar.process = None


def get(peer: Peer, path: str, who: str) -> int:
    stream = peer.h2.get_next_available_stream_id()
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a")]
    fields += [(b":path", path.encode()), (b"x-user-id", who.encode())]
    peer.send(stream, fields)
    return stream


def read_until(peer: Peer, done: Callable[[], bool]) -> None:
    while not done():
        peer.read()


def test_other_streams_of_a_connection_go_at_full_speed(world: Runs) -> None:
    """One HTTP/2 connection to the sidecar, and one from it to the upstream."""
    before = memory(world.sidecar, "VmRSS")
    with connect(world.port("h2c")) as sock:
        peer = Peer(sock, client=True)
        slow = get(peer, "/middle", world.user())
        read_until(peer, lambda: bool(peer.messages[slow].body))
        start = time.monotonic()
        quick = get(peer, "/middle", world.user("control"))
        read_until(peer, lambda: peer.messages[quick].ended)
        assert len(peer.messages[quick].body) == MIDDLE
        took = time.monotonic() - start
        assert len(peer.messages[slow].body) < 20_000 * (took + 1.5)
        assert memory(world.sidecar, "VmRSS") - before < 20 * MEGA
        world.stop()
        read_until(peer, lambda: peer.messages[slow].ended)
        assert len(peer.messages[slow].body) == MIDDLE


def test_what_is_left_behind_is_found(world: Runs) -> None:
    """The check that all modules here end with: it can fail."""
    before = open_when_idle(world.sidecar)
    with begin(world, "trickle") as sock:
        read_head(sock)
        with pytest.raises(AssertionError, match="left behind") as e:
            assert_nothing_left(world.sidecar, before, 0.5)
        told = ("counterfault_faults_active", 'counterfault_tasks{process="workers"', " socket")
        assert all(word in str(e.value).partition(" beside ")[0] for word in told)
    assert_nothing_left(world.sidecar, before, kept=True)
