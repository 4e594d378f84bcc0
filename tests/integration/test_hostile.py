"""Broken upstreams, killed processes and the end of the sidecar itself, with many clients there."""

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import Frame, GoAwayFrame

from tests.support.conformance import primary_engine
from tests.support.http1_wire import (
    Scripted,
    connect,
    echo,
    read_all,
    read_answer,
    read_exactly,
    read_head,
    scripted,
)
from tests.support.many_connections import (
    descriptors,
    is_cut_off,
    open_connections,
    status_of_request,
)
from tests.support.passthrough_sidecar import PEOPLE, lines
from tests.support.persistent_clients import Clients
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, alive, free_port, until, user

HELLO = 'location / { return 200 "hello"; }'
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
LINGER_0 = struct.pack("ii", 1, 0)
# How long a worker waits at the end for what is under way, unless it is told otherwise.
DRAIN = 30.0
# A worker that dies younger than this is not replaced at once.
YOUNG = 2.0
# Whose requests these are: the experiment's too, whose fault is elsewhere.
WHO = {"experiment": user("experiment"), "control": user("control")}

# --- broken upstreams


def reset(sock: socket.socket) -> None:
    read_head(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)


def reset_in_head(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 O")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)


def half_a_body(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")


def reset_in_body(sock: socket.socket) -> None:
    half_a_body(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)


def garbage(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(bytes(range(256)) * 64 + b"\r\n\r\n")


def tls(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500)


def bad_chunks(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n")


def endless_head(sock: socket.socket) -> None:
    """Sixteen megabytes, if they are taken."""
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    for i in range(1024):
        sock.sendall(b"x-%d: %s\r\n" % (i, b"x" * 16384))


def endless_line(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(1024):
        sock.sendall(b"x" * 16384)


class World:
    """A sidecar in front of an upstream that a test directs; nobody is at `down`.

    `pair` leads to two such upstreams, `rest` to two where nobody is and to one that answers.
    """

    def __init__(self, sidecar: Sidecar, stage: Scripted, pair: tuple[Scripted, Scripted]) -> None:
        self.sidecar, self.stage, self.pair = sidecar, stage, pair

    def connect(self, listener: str = "inbound") -> socket.socket:
        address = self.sidecar.settings["listeners"][listener]["listen"]
        return connect(int(address.rpartition(":")[2]))

    def counted(self, cohort: str) -> dict[str, float]:
        return {
            code: self.sidecar.metric("counterfault_requests_total", cohort=cohort, code=code)
            for code in ("1xx", "2xx", "3xx", "4xx", "5xx", "error")
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    nobody = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    with (
        scripted(echo) as stage,
        scripted(echo) as one,
        scripted(echo) as two,
        ExitStack() as stack,
    ):
        upstreams = {
            "down": nobody[0],
            "pair": [one.url, two.url],
            "rest": [*nobody[1:], stage.url],
        }
        listeners = {
            name: {"listen": f"127.0.0.1:{free_port()}", "upstream": upstream}
            for name, upstream in upstreams.items()
        }
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(tmp_path_factory.mktemp("hostile"), stage.url, settings)
        stack.callback(sidecar.stop)
        faults = [
            {"at": at, "error": 500, "match": {"path": "/elsewhere"}} for at in ("inbound", "down")
        ]
        sidecar.start().running(faults=faults)
        yield World(sidecar, stage, (one, two))
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def ask(sock: socket.socket, who: str, path: str = "/", method: str = "GET") -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: shop.test\r\n".encode()
    sock.sendall(head + lines({"x-user-id": who}) + b"\r\n")


BEFORE = [reset, reset_in_head, garbage, tls]
WITHIN = [half_a_body, reset_in_body, bad_chunks]
ENDLESS = [endless_head, endless_line]


@pytest.mark.parametrize("cohort", WHO)
@pytest.mark.parametrize("script", [*BEFORE, *WITHIN, *ENDLESS, None])
def test_a_broken_upstream_is_a_failure_of_its_own_and_not_a_fault(
    world: World, cohort: str, script: Callable[[socket.socket], None] | None
) -> None:
    """Counted once for the cohort, never as injected; the worker serves the next request."""
    workers, before = world.sidecar.workers(), world.counted(cohort)
    world.stage.play(script or echo)
    with world.connect("inbound" if script else "down") as sock:
        ask(sock, WHO[cohort])
        try:
            answer = read_all_of(sock)
        except ConnectionResetError:
            answer = b""
    if script in WITHIN:
        assert answer.startswith(b"HTTP/1.1 200 ")
        expected = {**before, "error": before["error"] + 1}
    else:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"counterfault" not in answer
        expected = {**before, "5xx": before["5xx"] + 1}
    until(lambda: world.counted(cohort) == expected)
    world.stage.play(echo)
    with world.connect() as sock:
        ask(sock, WHO[cohort])
        assert read_answer(sock).status == 200
    until(lambda: world.counted(cohort) == {**expected, "2xx": before["2xx"] + 1})
    assert world.sidecar.metric("counterfault_faults_total") == 0
    assert world.sidecar.workers() == workers


def read_all_of(sock: socket.socket) -> bytes:
    """An answer that is whole, or what there is of it."""
    head = read_head(sock)
    if b"\r\ncontent-length: " not in head.lower():
        return head + read_all(sock)
    size = int(head.lower().partition(b"\r\ncontent-length: ")[2].split()[0])
    return head + read_exactly(sock, size)


def test_an_upstream_that_hangs_is_waited_for(world: World) -> None:
    """`limits.connect` is over with the connection; who gives up is the client."""
    hung, done = threading.Event(), threading.Event()

    def hang(sock: socket.socket) -> None:
        read_head(sock)
        hung.set()
        read_all(sock)
        done.set()

    world.stage.play(hang)
    before = world.counted("control")
    with world.connect() as sock:
        ask(sock, WHO["control"])
        assert hung.wait(10)
        world.stage.script = echo
        with world.connect() as other:
            ask(other, WHO["control"])
            assert read_answer(other).status == 200
    assert done.wait(10)
    expected = {**before, "error": before["error"] + 1, "2xx": before["2xx"] + 1}
    until(lambda: world.counted("control") == expected)
    assert world.sidecar.metric("counterfault_faults_total") == 0


@pytest.mark.parametrize("script", [reset, reset_in_head, half_a_body])
def test_what_has_reached_an_upstream_is_never_sent_again(
    world: World, script: Callable[[socket.socket], None]
) -> None:
    def opened() -> int:
        return sum(node.opened for node in world.pair)

    for node in world.pair:
        node.play(script)
    before = opened()
    with world.connect("pair") as sock:
        ask(sock, WHO["control"], method="POST")
        read_all_of(sock)
    with world.connect("pair") as sock:
        ask(sock, WHO["control"], method="POST")
        read_all_of(sock)
    # The second is over: another attempt at the first would have come before it.
    assert opened() == before + 2


def test_two_nodes_are_tried_and_no_third(world: World) -> None:
    """Each failure is remembered, so that the next request goes to the node that is up."""
    world.stage.play(echo)
    codes = []
    for i in range(30):
        with world.connect("rest") as sock:
            ask(sock, f"user-{i}")
            codes.append(read_answer(sock).status)
    # A node is left alone for a second, hence no bound on a slow machine but this.
    assert set(codes) <= {200, 502}
    assert codes.count(502) <= 3


def test_an_upstream_that_goes_away_in_order_answers_what_it_has_accepted(world: World) -> None:
    """As nginx does after `keepalive_requests`, and gRPC servers at their connections' age."""

    def script(sock: socket.socket) -> None:
        h2 = H2Connection(H2Configuration(client_side=False))
        h2.initiate_connection()
        while not any(isinstance(e, RequestReceived) for e in h2.receive_data(sock.recv(65536))):
            sock.sendall(h2.data_to_send())
        sock.sendall(h2.data_to_send() + GoAwayFrame(0, last_stream_id=1).serialize())
        h2.send_headers(1, [(":status", "200")])
        h2.send_data(1, b"hello", end_stream=True)
        sock.sendall(h2.data_to_send())
        read_all(sock)

    world.stage.play(script)
    client = H2Client(world.sidecar.port)
    with client.sock:
        client.get("/")
        while not (client.over or client.heard(StreamEnded, 1) or client.heard(StreamReset)):
            client.read()
        assert client.heard(StreamEnded, 1)
        assert not client.heard(StreamReset)
        (answer,) = (e.headers for e in client.told if isinstance(e, ResponseReceived))
        assert str(answer[0][1]) == "200"


# --- killed processes


class Watch(threading.Thread):
    """Samples a counter all the time; a context manager."""

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__()
        self._sidecar, self._enough = sidecar, threading.Event()
        self.seen: list[float] = []

    def run(self) -> None:
        while not self._enough.wait(0.05):
            self.seen.append(self._sidecar.metric("counterfault_requests_total"))

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()

    @property
    def monotone(self) -> bool:
        return all(a <= b for a, b in pairwise(self.seen))


def replaced(sidecar: Sidecar, gone: int, others: frozenset[int]) -> bool:
    """Whether there are two workers that serve, the others and another one."""
    workers = sidecar.get("/api/experiments")["workers"]
    return workers["ready"] == 2 and gone not in workers["pids"] and others <= {*workers["pids"]}


@primary_engine("mitmproxy")
def test_of_a_killed_worker_only_the_requests_under_way_are_lost(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """Envoy is one for all: until there is another, which is within a second, nobody is served."""
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    started = time.monotonic()
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(sidecar))
        kept = [stack.enter_context(Clients(sidecar.url)) for _ in range(4)]
        fresh = [stack.enter_context(Clients(sidecar.url, "close")) for _ in range(2)]
        clients = kept + fresh
        until(lambda: min(c.count for c in clients) > 50)
        until(lambda: time.monotonic() - started > YOUNG + 0.5)
        workers, took = set(sidecar.workers()), list[float]()
        for pid in sorted(workers):
            workers.discard(pid)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            until(partial(replaced, sidecar, pid, frozenset(workers)))
            took.append(time.monotonic() - killed)
        print("respawn", took)
        # The quicker of them: the machine has other things to do too.
        assert min(took) < 1.0
        before = [c.count for c in clients]
        until(lambda: all(c.count > b + 50 for c, b in zip(clients, before, strict=True)))
        seen = len(watch.seen)
        until(lambda: len(watch.seen) > seen + 5)
    if engine == "mitmproxy":  # each of them has one request under way at most, each time
        assert all(len(c.wrong) <= 2 for c in clients)
    assert all(isinstance(wrong, httpx.TransportError) for c in clients for wrong in c.wrong)
    assert watch.monotone
    assert watch.seen[0] < watch.seen[-1]


@contextmanager
def everybody(sidecar: Sidecar) -> Iterator[list[Clients]]:
    """Clients of every cohort that never rest, with connections of both kinds; under way."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Clients(sidecar.url, connection, who.get("x-user-id")))
            for who in PEOPLE.values()
            for connection in ("keep-alive", "close")
        ]
        until(lambda: min(c.count for c in clients) > 20)
        yield clients


@primary_engine("envoy")
def test_without_a_supervisor_no_request_is_lost(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """Nor does one wait: faults that the lease covers end without traffic noticing."""
    limits = {"enrolled": "100%", "lease": "500ms"}
    url = make_nginx(HELLO).url
    sidecar = make_sidecar(url, engine=engine, workers=2, limits=limits).start()
    sidecar.running(faults=[{"at": "inbound", "error": 503}])
    workers = sidecar.workers()
    assert sidecar.process is not None
    with everybody(sidecar) as clients:
        sidecar.process.kill()
        sidecar.process.wait()
        before = [c.count for c in clients]
        until(lambda: all(c.count > b + 100 for c, b in zip(clients, before, strict=True)))
    assert [c.wrong for c in clients] == [[]] * len(clients)
    sidecar.start()
    assert sorted(sidecar.workers()) == sorted(workers)


# --- the end


class Gate:
    """An upstream that answers a path /wait once it is opened, and others at once."""

    def __init__(self) -> None:
        self.opened, self.waiting = threading.Event(), threading.Semaphore(0)

    def script(self, sock: socket.socket) -> None:
        while head := read_head(sock):
            if head.startswith(b"GET /wait "):
                self.waiting.release()
                self.opened.wait(60)
            sock.sendall(FINE)

    def wait_for(self, requests: int) -> None:
        """Until so many are held here."""
        for _ in range(requests):
            assert self.waiting.acquire(timeout=30)


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def sigterm(sidecar: Sidecar) -> float:
    """Send it and wait until no more clients are accepted; when it was sent."""
    assert sidecar.process is not None
    start = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    until(lambda: refused(sidecar.port))
    return start


def ends(sidecar: Sidecar, within: float) -> int:
    """Its exit code."""
    assert sidecar.process is not None
    code = sidecar.process.wait(within)
    sidecar.process = None
    return code


def ends_with_many_there(sidecar: Sidecar, gate: Gate, size: int, under_way: int) -> float:
    """SIGTERM while so many connections are open, and some of them wait for an answer."""
    with open_connections(sidecar.port, size) as clients:
        waiting, served, silent = clients[:under_way], clients[under_way:200], clients[200:]
        assert [status_of_request(sock) for sock in served] == [200] * len(served)
        for sock in waiting:
            ask(sock, "somebody", "/wait")
        gate.wait_for(under_way)
        start = sigterm(sidecar)
        for sock in served:
            assert sock.recv(1) == b""
        # Some may be in the kernel's queue still, which ends with an RST.
        assert all(is_cut_off(sock) for sock in silent)
        gate.opened.set()
        answers = [read_answer(sock) for sock in waiting]
        assert [(a.status, a.body) for a in answers] == [(200, b"hello")] * under_way
        # They are told that the connection is of no more use.
        assert {a.header(b"connection") for a in answers} == {b"close"}
        assert ends(sidecar, 30) == 0
        return time.monotonic() - start


@primary_engine("mitmproxy")
def test_sigterm_with_two_thousand_clients_finishes_what_is_under_way(
    make_sidecar: MakeSidecar, engine: str
) -> None:
    gate = Gate()
    with descriptors(5000), scripted(gate.script) as upstream:
        sidecar = make_sidecar(upstream.url, engine=engine).start()
        took = ends_with_many_there(sidecar, gate, 2000, 20)
    print("ended", took)
    assert took < DRAIN / 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigterm_with_eight_thousand_clients_finishes_what_is_under_way(
    make_sidecar: MakeSidecar, engine: str
) -> None:
    gate = Gate()
    with descriptors(10_000), scripted(gate.script) as upstream:
        sidecar = make_sidecar(upstream.url, engine=engine, workers=2).start()
        took = ends_with_many_there(sidecar, gate, 8000, 100)
    print("ended", took)
    assert took < DRAIN / 2


@primary_engine("envoy")
def test_sigterm_loses_no_request_of_clients_that_never_rest(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """Of every cohort, with connections of both kinds."""
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    # On Envoy the enrolled take a detour.
    fault = {"at": "inbound", "error": 503, "when": "after", "match": {"path": "/elsewhere"}}
    sidecar.running(faults=[fault])
    with everybody(sidecar) as clients:
        sigterm(sidecar)
        assert ends(sidecar, 20) == 0
    refusals = (httpx.ConnectError, httpx.ConnectTimeout)
    lost = [wrong for c in clients for wrong in c.wrong if not isinstance(wrong, refusals)]
    assert lost == []


def test_sigterm_closes_all_ports_and_waits_no_longer_than_the_drain(
    make_sidecar: MakeSidecar, engine: str
) -> None:
    """Also those that Envoy leaves to workers; `drain` is for all of them at once.

    A request that has no answer by then gets one of ours.
    """
    gate = Gate()
    with scripted(gate.script) as upstream, ExitStack() as stack:
        port = free_port()
        raw = {"listen": f"127.0.0.1:{port}", "upstream": upstream.url.replace("http", "tcp")}
        limits = {"enrolled": "100%", "drain": "4s"}
        sidecar = make_sidecar(
            upstream.url, engine=engine, limits=limits, listeners={"raw": raw}
        ).start()
        until(lambda: not refused(port))
        held = [stack.enter_context(connect(each)) for each in (sidecar.port, port)]
        for sock in held:
            ask(sock, "somebody", "/wait")
        gate.wait_for(2)
        start = sigterm(sidecar)
        until(lambda: refused(port))
        assert time.monotonic() - start < 2
        assert ends(sidecar, 20) == 0
        assert 3.9 < time.monotonic() - start < 7
        if engine == "envoy":  # which is gone by then
            assert read_all(held[0]) == b""
        else:
            assert read_answer(held[0]).status == 502
        gate.opened.set()


@primary_engine("envoy")
def test_of_a_supervisor_that_is_killed_amid_its_end_the_next_one_serves(
    make_sidecar: MakeSidecar, engine: str
) -> None:
    """What it has left listens no more, but finishes what is under way there."""
    gate = Gate()
    with scripted(gate.script) as upstream:
        sidecar = make_sidecar(upstream.url, engine=engine).start()
        with connect(sidecar.port) as held:
            ask(held, "somebody", "/wait")
            gate.wait_for(1)
            sigterm(sidecar)
            assert sidecar.process is not None
            sidecar.process.kill()
            sidecar.process.wait()
            sidecar.start()
            with connect(sidecar.port) as sock:
                assert status_of_request(sock) == 200
            gate.opened.set()
            assert read_answer(held).status == 200


@pytest.mark.slow
def test_a_worker_that_is_stalled_does_not_keep_the_sidecar(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    limits = {"enrolled": "100%", "drain": "1s"}
    url = make_nginx(HELLO).url
    sidecar = make_sidecar(url, engine=engine, workers=2, limits=limits).start()
    stalled, *others = sidecar.workers()
    os.kill(stalled, signal.SIGSTOP)
    assert sidecar.process is not None
    start = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert ends(sidecar, 30) == 0
    print("ended", time.monotonic() - start)
    assert time.monotonic() - start < 10
    until(lambda: not any(alive(pid) for pid in (stalled, *others)))
    assert "does not exit; killed" in sidecar.log.read_text()


class H2Client:
    """An HTTP/2 client without TLS, and everything it was told.

    That it is to go away is kept from h2, which would take nothing more, not even the answers that
    are still to come.
    """

    def __init__(self, port: int) -> None:
        self.sock = connect(port)
        self.asked: list[int] = []
        self.last: list[int] = []
        """The last stream that the other end will serve, each time that it said so."""
        self._rest = b""
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.told: list[Event] = []
        self.over = False

    def get(self, path: str) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "http", ":authority": "shop.test", ":path": path}
        self.h2.send_headers(stream, list(head.items()), end_stream=True)
        self.sock.sendall(self.h2.data_to_send())
        self.asked.append(stream)
        return stream

    def read(self) -> None:
        data = self.sock.recv(65536)
        self.over = not data
        self._rest += data
        while len(self._rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
            if len(self._rest) < 9 + length:
                break
            whole, self._rest = self._rest[: 9 + length], self._rest[9 + length :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(whole[9:]))
                self.last.append(frame.last_stream_id)
            else:
                self.told += self.h2.receive_data(whole)

    def heard(self, kind: type[Event], stream: int | None = None) -> bool:
        return any(
            isinstance(e, kind) and stream in (None, getattr(e, "stream_id", None))
            for e in self.told
        )


@contextmanager
def h2_upstream(gate: Gate) -> Iterator[Scripted]:
    """As the gate, in HTTP/2."""
    from tests.support.http2_wire import Message, Peer, answering

    def answer(peer: Peer, stream: int, message: Message) -> None:
        if (b":path", b"/wait") in message.headers:
            gate.waiting.release()
            gate.opened.wait(60)
        peer.send(stream, [(b":status", b"200")], b"hello")

    with scripted(answering(answer)) as upstream:
        yield upstream


def test_http_2_clients_are_let_go_in_order_at_the_end(
    make_sidecar: MakeSidecar, engine: str
) -> None:
    """An idle connection ends, another one after the answer that is under way.

    Both are told to go away, and which request was the last one that is served. Or else one that is
    sent at that moment is lost: the client cannot know that it was not served.
    """
    gate = Gate()
    with h2_upstream(gate) as upstream:
        sidecar = make_sidecar(upstream.url, engine=engine).start()
        idle, busy = H2Client(sidecar.port), H2Client(sidecar.port)
        with idle.sock, busy.sock:
            first = idle.get("/")
            while not idle.heard(StreamEnded, first):
                idle.read()
            stream = busy.get("/wait")
            gate.wait_for(1)
            sigterm(sidecar)
            busy.get("/")
            while not idle.over:
                idle.read()
            gate.opened.set()
            while not busy.over:
                busy.read()
        assert ends(sidecar, 20) == 0
    assert busy.last[-1] >= stream
    for client in (idle, busy):
        served = [stream for stream in client.asked if stream <= client.last[-1]]
        assert all(client.heard(ResponseReceived, stream) for stream in served)
        assert all(client.heard(StreamEnded, stream) for stream in served)
