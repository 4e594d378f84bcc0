"""Heads that are too large or unclean are refused, and never reach the upstream."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from tests.support import http_clients
from tests.support.http1_wire import connect
from tests.support.programs import Nginx, Sidecar, free_port

LIMITS = {"enrolled": "100%", "head_bytes": 4096, "head_count": 20}
ECHO = """
    listen 127.0.0.1:%d http2;
    location / { add_header X-Got "$http_x_a|$http_x_c"; return 200 "hello"; }
"""


@dataclass(frozen=True, slots=True)
class World:
    """nginx answers with the values of X-A and X-C."""

    engine: str
    sidecar: Sidecar
    nginx: Nginx
    h2c: str

    def seen(self, path: str) -> bool:
        return f" {path} " in self.nginx.access.read_text()

    def works(self) -> bool:
        return http_clients.get(self.sidecar.url).text == "hello"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("hygiene")
    port, h2c = free_port(), free_port()
    nginx = Nginx(directory / "nginx", ECHO % port)
    listener = {"listen": f"127.0.0.1:{h2c}", "upstream": f"http://127.0.0.1:{port}"}
    settings = {"engine": engine, "limits": LIMITS, "listeners": {"h2c": listener}}
    sidecar = Sidecar(directory / "sidecar", nginx.url, settings).start()
    yield World(engine, sidecar, nginx, f"http://127.0.0.1:{h2c}")
    sidecar.stop()
    nginx.stop()


def answer(world: World, raw: bytes) -> bytes:
    """All that comes back until the sidecar closes."""
    got = b""
    # Envoy hangs up on who has more to say, and then its own last words may be lost.
    hung_up = (ConnectionResetError, BrokenPipeError) if world.engine == "envoy" else ()
    with connect(world.sidecar.port) as sock, suppress(*hung_up):
        sock.sendall(raw)
        while chunk := sock.recv(65536):
            got += chunk
    return got


UNCLEAN = {
    "bare CR in a value": b"GET /unclean HTTP/1.1\r\nHost: a\r\nX-A: b\rX-C: d\r\n\r\n",
    "NUL in a value": b"GET /unclean HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
    "a folded line": b"GET /unclean HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "NUL in a name": b"GET /unclean HTTP/1.1\r\nHost: a\r\nX-\0A: b\r\n\r\n",
    "a space before the colon": b"GET /unclean HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
    "two lengths": b"POST /unclean HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": b"POST /unclean HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a strange coding": b"POST /unclean HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
}


# What Envoy makes of heads that RFC 9112 lets it clean (2.2, 5.2).
CLEANED = {"bare CR in a value": b"bX-C: d|", "a folded line": b"b c|"}


@pytest.mark.parametrize("name", UNCLEAN)
def test_unclean_heads_are_refused_and_the_connection_is_closed(world: World, name: str) -> None:
    if world.engine == "envoy" and name in CLEANED:
        raw = UNCLEAN[name].replace(b"/unclean", b"/cleaned")
        got = answer(world, raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nX-Got: " + CLEANED[name] + b"\r\n" in got
    else:
        # A coding that one does not know is "not implemented" (RFC 9112, 6.1), says Envoy.
        status = 501 if world.engine == "envoy" and name == "a strange coding" else 400
        assert answer(world, UNCLEAN[name]).startswith(b"HTTP/1.1 %d " % status)
    assert world.works()
    assert not world.seen("/unclean")


@pytest.mark.parametrize(
    "headers",
    [
        b"X-A: " + b"b" * 5000 + b"\r\n",
        b"".join(b"X-%d: b\r\n" % i for i in range(30)),
        b"X-A: " + b"b" * 200_000,
    ],
    ids=["bytes", "count", "without end"],
)
def test_heads_that_are_too_large_are_refused(world: World, headers: bytes) -> None:
    got = answer(world, b"GET /large HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
    assert got.startswith(b"HTTP/1.1 431 ") or (got == b"" and world.engine == "envoy")
    assert not world.seen("/large")


def test_what_is_just_small_enough_passes(world: World) -> None:
    assert http_clients.get(world.sidecar.url, headers={"x-a": "b" * 3500}).text == "hello"


@pytest.mark.parametrize(
    "headers",
    [{"x-a": "b" * 9000}, {f"x-{i}": "b" for i in range(30)}],
    ids=["bytes", "count"],
)
@pytest.mark.parametrize("content", [None, b"body"])
def test_http2_heads_are_bounded_too(
    world: World, headers: dict[str, str], content: bytes | None
) -> None:
    with http_clients.Client(http1=False, http2=True) as client:
        assert client.get(f"{world.h2c}/small").text == "hello"
        try:
            answer = client.post(f"{world.h2c}/large", headers=headers, content=content)
            status = answer.status_code
        except httpx.RemoteProtocolError:
            status = None  # the stream is reset
    assert status in (None, 431)
    assert world.seen("/small")
    assert not world.seen("/large")
