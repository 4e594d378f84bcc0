"""Heads that are too large or unclean are refused, and never reach the upstream."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from programs import Nginx, Sidecar

LIMITS = {"enrolled": "100%", "head_bytes": 4096, "head_count": 20}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, Nginx]]:
    directory = tmp_path_factory.mktemp("hygiene")
    nginx = Nginx(directory / "nginx", 'location / { return 200 "hello"; }')
    sidecar = Sidecar(directory / "sidecar", nginx.url, {"limits": LIMITS}).start()
    yield sidecar, nginx
    sidecar.stop()
    nginx.stop()


def answer(sidecar: Sidecar, raw: bytes) -> bytes:
    """All that comes back until the sidecar closes."""
    with socket.create_connection(("127.0.0.1", sidecar.port), 10) as sock:
        sock.sendall(raw)
        got = b""
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


@pytest.mark.parametrize("name", UNCLEAN)
def test_unclean_heads_are_refused_and_the_connection_is_closed(
    world: tuple[Sidecar, Nginx], name: str
) -> None:
    sidecar, nginx = world
    assert answer(sidecar, UNCLEAN[name]).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(sidecar.url).text == "hello"
    assert "/unclean" not in nginx.access.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        b"X-A: " + b"b" * 5000 + b"\r\n",
        b"".join(b"X-%d: b\r\n" % i for i in range(30)),
        b"X-A: " + b"b" * 200_000,
    ],
    ids=["bytes", "count", "without end"],
)
def test_heads_that_are_too_large_are_refused(world: tuple[Sidecar, Nginx], headers: bytes) -> None:
    sidecar, nginx = world
    got = answer(sidecar, b"GET /large HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
    assert got.startswith(b"HTTP/1.1 431 ")
    assert "/large" not in nginx.access.read_text()


def test_what_is_just_small_enough_passes(world: tuple[Sidecar, Nginx]) -> None:
    sidecar, _ = world
    assert httpx.get(sidecar.url, headers={"x-a": "b" * 3500}).text == "hello"


def test_http2_heads_are_bounded_too(world: tuple[Sidecar, Nginx]) -> None:
    sidecar, nginx = world
    with (
        httpx.Client(http1=False, http2=True) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get(f"{sidecar.url}/large2", headers={"x-a": "b" * 9000})
    assert "/large2" not in nginx.access.read_text()
