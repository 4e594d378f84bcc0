"""Keep-alive, pipelining, streaming and broken connections, with real sockets on both sides."""

import hashlib
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.cases import each
from tests.support.http1_wire import (
    connect,
    echo,
    read_all,
    read_answer,
    read_exactly,
    read_head,
    scripted,
)
from tests.support.passthrough_sidecar import (
    BIG,
    MEGA,
    PEOPLE,
    VICTIM,
    World,
    each_person,
    lines,
    port_of,
    undated,
)
from tests.support.programs import program, until

# What a worker may grow by while it passes something big.
GROWTH = 40 * MEGA


@pytest.fixture(scope="module")
def world(passthrough_worlds: Callable[[str], World], engine: str) -> World:
    return passthrough_worlds(engine)


def head(method: str, person: dict[str, str], more: bytes = b"", target: str = "/") -> bytes:
    line = f"{method} {target} HTTP/1.1\r\nHost: shop.test\r\n".encode()
    return line + more + lines(person) + b"\r\n"


def curl(*args: str) -> bytes:
    """The answer's heads and body."""
    command = [program("curl"), "-sS", "-i", "--max-time", "30", "--noproxy", "*", *args]
    return subprocess.run(command, check=True, capture_output=True).stdout


def flags(person: dict[str, str]) -> list[str]:
    return [part for name, value in person.items() for part in ("-H", f"{name}: {value}")]


# --- many requests on one connection


def test_one_connection_serves_many_people(world: World):
    world.stage.play(echo)
    before = world.stage.opened
    with world.connect("stage") as sock:
        for _ in range(20):
            for person in (VICTIM, *PEOPLE.values()):
                sock.sendall(head("GET", person, target="/faulty"))
                assert read_answer(sock).status == (500 if person is VICTIM else 200)
    assert world.stage.opened == before + 1


def test_pipelined_requests_are_answered_in_order(world: World):
    world.stage.play(echo)
    people = [*PEOPLE.values(), VICTIM, *PEOPLE.values()]
    more = b"Transfer-Encoding: chunked\r\n"
    with world.connect("stage") as sock:
        requests = (
            head("POST", person, more + b"x-number: %d\r\n" % i, "/faulty")
            + b"2\r\nhi\r\n0\r\nx-trailer: %d\r\n\r\n" % i
            for i, person in enumerate(people)
        )
        sock.sendall(b"".join(requests))
        for i, person in enumerate(people):
            answer = read_answer(sock)
            assert answer.status == (500 if person is VICTIM else 200)
            assert person is VICTIM or b"x-number: %d\r\n" % i in answer.body
            if world.engine == "envoy" and person is VICTIM:
                # It has answered before the body was there, and says that it listens no more.
                assert answer.header(b"connection") == b"close"
                assert read_all(sock) == b""
                break


@each("kept", [False, True])
@each_person
def test_http_1_0_clients_are_served_and_let_go(world: World, person: dict[str, str], kept: bool):
    more = b"Connection: keep-alive\r\n" if kept else b""
    seen = []
    for url in (world.direct["nginx"], world.through("nginx")):
        with connect(port_of(url)) as sock:
            sock.sendall(b"GET /target?1.0 HTTP/1.0\r\n%s%s\r\n" % (more, lines(person)))
            answer = read_answer(sock)
            seen.append((answer.status, answer.body, answer.header(b"connection")))
            if not kept:
                assert sock.recv(1) == b""
    assert seen[0] == seen[1] == (200, b"/target?1.0", b"keep-alive" if kept else b"close")


@each_person
def test_an_upstream_that_closes_after_each_answer_is_asked_anew(
    world: World, person: dict[str, str]
):
    answer = curl(*flags(person), *[f"{world.through('nginx')}/once"] * 5)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"once") == 5


@each_person
def test_an_upstream_may_close_an_idle_connection(world: World, person: dict[str, str]):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    world.stage.play(script)
    opened, closed = world.stage.opened, world.stage.closed
    with world.connect("stage") as sock:
        for i in range(3):
            sock.sendall(head("GET", person))
            assert read_answer(sock).body == b"hi"
            until(lambda: world.stage.closed == world.stage.opened)
            assert world.stage.closed == closed + i + 1
    assert world.stage.opened == opened + 3


def test_a_client_that_closes_its_half_has_left(world: World):
    """As with Envoy: who sends a FIN does not wait for the answer."""
    begun, gone = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        begun.set()
        if not read_all(sock):
            gone.set()

    world.stage.play(script)
    before = world.counted("error")
    with world.connect("stage") as sock:
        sock.sendall(head("GET", PEOPLE["bystander"]))
        assert begun.wait(10)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert gone.wait(10)
    until(lambda: world.counted("error") == before + 1)


# --- Expect


def test_continue_comes_before_the_body(world: World, tmp_path: Path):
    body = tmp_path / "body"
    body.write_bytes(b"q" * MEGA)
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "30")
    answer = curl(*expect, "--data-binary", f"@{body}", world.through("digest"))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(hashlib.sha256(body.read_bytes()).hexdigest().encode())


@each_person
def test_expect_is_the_upstreams_to_refuse(world: World, person: dict[str, str]):
    heads = []

    def script(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        sock.sendall(b"HTTP/1.1 417 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("PUT", person, b"Content-Length: 9\r\nExpect: 100-continue\r\n"))
        answer = read_answer(sock)
        assert (answer.status, answer.body) == (417, b"no")
    assert b"\r\nContent-Length: 9\r\nExpect: 100-continue\r\n" in heads[0]


def test_a_fault_answers_whoever_expects(world: World):
    with world.connect("digest") as sock:
        more = b"Content-Length: 4\r\nExpect: 100-continue\r\n"
        sock.sendall(head("PUT", VICTIM, more, "/faulty"))
        if (answer := read_answer(sock)).status == 100:
            sock.sendall(b"body")
            answer = read_answer(sock)
        assert answer.status == 500


# --- bodies


@each_person
def test_answers_are_passed_on_as_they_come(world: World, person: dict[str, str]):
    got = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        if got.wait(10):
            sock.sendall(b"data: 2\n\n")

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("GET", person))
        chunked = b"transfer-encoding: chunked" in read_head(sock)
        assert chunked == (world.engine == "envoy")
        first, last = b"data: 1\n\n", b"data: 2\n\n"
        if chunked:
            first, last = b"9\r\n%s\r\n" % first, b"9\r\n%s\r\n0\r\n\r\n" % last
        assert read_exactly(sock, len(first)) == first
        got.set()
        assert read_exactly(sock, len(last)) == last


@each_person
def test_requests_are_passed_on_as_they_come(world: World, person: dict[str, str]):
    got = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        if read_exactly(sock, 4) == b"half":
            got.set()
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n" + read_exactly(sock, 4))

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("PUT", person, b"Content-Length: 8\r\n") + b"half")
        assert got.wait(10)
        sock.sendall(b"done")
        assert read_answer(sock).body == b"done"


@each_person
def test_an_answer_may_come_before_the_request_is_whole(world: World, person: dict[str, str]):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Big\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        read_all(sock)

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("PUT", person, b"Content-Length: 99\r\n"))
        answer = read_answer(sock)
        assert (answer.status, answer.body) == (413, b"no")


@each_person
def test_an_upstream_may_answer_early_and_close(world: World, person: dict[str, str]):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Big\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        sock.shutdown(socket.SHUT_WR)
        read_exactly(sock, MEGA)

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("PUT", person, b"Content-Length: %d\r\n" % BIG) + b"x" * 1000)
        answer = read_answer(sock)
        assert (answer.status, answer.body) == (413, b"no")


@each_person
def test_twenty_megabytes_go_both_ways_without_growth(world: World, person: dict[str, str]):
    file = world.www / "big"
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    before = world.memory("VmRSS")
    answer = curl("-T", str(file), *flags(person), world.through("digest"))
    assert answer.endswith(expected.encode())
    answer = curl(*flags(person), f"{world.through('nginx')}/big")
    assert hashlib.sha256(answer.partition(b"\r\n\r\n")[2]).hexdigest() == expected
    assert world.memory("VmHWM") < before + GROWTH


@each("chunked", [False, True])
def test_a_client_that_does_not_read_makes_the_upstream_wait(world: World, chunked: bool):
    before = world.memory("VmRSS")
    sent = [0]

    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.settimeout(1)  # after which nobody will read any more
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        sock.sendall(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        while sent[0] < 10 * BIG:
            size = sock.send(b"8000\r\n%s\r\n" % (b"x" * 32768) if chunked else b"x" * 32768)
            sent[0] += size

    world.stage.play(script)
    closed = world.stage.closed
    with world.connect("stage") as sock:
        sock.sendall(head("GET", {}))
        until(lambda: world.stage.closed > closed)
    assert 0 < sent[0] < 2 * BIG
    assert world.memory("VmHWM") < before + GROWTH


def test_an_upstream_that_does_not_read_makes_the_client_wait(world: World):
    before = world.memory("VmRSS")
    done = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        done.wait(10)

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("PUT", {}, b"Content-Length: %d\r\n" % (10 * BIG)))
        sock.settimeout(1)  # after which nobody will read any more
        sent = 0
        with suppress(TimeoutError):
            while sent < 10 * BIG:
                sent += sock.send(b"x" * 32768)
        done.set()
    assert 0 < sent < 2 * BIG
    assert world.memory("VmHWM") < before + GROWTH


# --- broken upstreams


@each(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
@each_person
def test_an_upstream_without_a_good_answer_is_a_502(
    world: World, person: dict[str, str], answer: bytes
):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    workers = world.sidecar.workers()
    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("GET", person))
        got = read_answer(sock)
        if got.status == 103:
            got = read_answer(sock)
        assert got.status == 502
    assert world.sidecar.workers() == workers


@each(
    ("framing", "body", "passed"),
    [
        (b"content-length: 10\r\n\r\n", b"hi", b"hi"),
        (b"transfer-encoding: chunked\r\n\r\n", b"5\r\nhi", b"2\r\nhi\r\n"),
    ],
)
@each_person
def test_a_body_that_breaks_off_breaks_off_for_the_client(
    world: World, person: dict[str, str], framing: bytes, body: bytes, passed: bytes
):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + framing + body)

    world.stage.play(script)
    with world.connect("stage") as sock:
        sock.sendall(head("GET", person))
        assert undated(read_all(sock)) == b"HTTP/1.1 200 OK\r\n" + framing + passed


@each_person
def test_silence_of_nginx_is_a_502_and_the_next_request_is_served(
    world: World, person: dict[str, str]
):
    url = world.through("nginx")
    answer = curl(*flags(person), f"{url}/silent", f"{url}/hello")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.endswith(b"hello")


@each_person
def test_an_upstream_that_is_away_is_a_502_until_it_is_back(world: World, person: dict[str, str]):
    workers = world.sidecar.workers()
    for more in ((), ("-d", "a body"), ("-d", "a body", "-H", "Expect: 100-continue")):
        assert curl(*flags(person), *more, world.through("down")).startswith(b"HTTP/1.1 502 ")
    with scripted(echo, port_of(world.direct["down"])):
        assert curl(*flags(person), world.through("down")).startswith(b"HTTP/1.1 200 ")
    assert world.sidecar.workers() == workers
