"""HTTP/2 frames that cost their sender nothing, and handshakes that never end."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import trustme
from h2.connection import H2Connection
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.support import http_clients
from tests.support.http1_wire import connect
from tests.support.many_connections import MEGA, is_cut_off, resident
from tests.support.programs import Nginx, Sidecar, free_port

# What is offered, and what workers and Envoy may grow by meanwhile.
FLOOD = 32 * MEGA
GROWTH = 32 * MEGA
STALLED = 2.0
GET = H2Connection().encoder.encode(
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
)

type Flood = Callable[[int], list[Frame]]
type World = tuple[Sidecar, ssl.SSLContext]


def pings(_: int) -> list[Frame]:
    return [PingFrame(0, b"counterf")]


def settings(_: int) -> list[Frame]:
    return [SettingsFrame(0, {SettingsFrame.MAX_FRAME_SIZE: 1 << 14})]


def resets(number: int) -> list[Frame]:
    """CVE-2023-44487: each request is under way when it is taken back."""
    stream = 2 * number + 1
    head = HeadersFrame(stream, GET, flags=["END_HEADERS", "END_STREAM"])
    return [head, RstStreamFrame(stream, 8)]


def continuations(number: int) -> list[Frame]:
    """CVE-2024-27983 and others: a head that never ends."""
    if number == 0:
        return [HeadersFrame(1, GET, flags=["END_STREAM"])]
    return [ContinuationFrame(1, b"\x00\x01x\x01y" * 20)]


def empty_data(number: int) -> list[Frame]:
    if number == 0:
        return [HeadersFrame(1, GET, flags=["END_HEADERS"])]
    return [DataFrame(1, b"")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    """A sidecar with a cleartext listener and one with TLS, `tls`."""
    directory = tmp_path_factory.mktemp("floods")
    ca, pem, context = trustme.CA(), str(directory / "tls.pem"), ssl.create_default_context()
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    ca.configure_trust(context)
    with ExitStack() as stack:
        port = free_port()
        conf = f'listen 127.0.0.1:{port} http2; location / {{ return 200 "hello"; }}'
        nginx = Nginx(directory / "nginx", conf)
        stack.callback(nginx.stop)
        h2c = f"http://127.0.0.1:{port}"
        tls = {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": nginx.url,
            "tls": {"cert": pem, "key": pem},
        }
        limits = {"enrolled": "100%", "head_time": "1s"}
        said = {"engine": engine, "limits": limits, "listeners": {"tls": tls}}
        sidecar = Sidecar(directory / "sidecar", h2c, said)
        stack.callback(sidecar.stop)
        yield sidecar.start(), context
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def pour(sock: socket.socket, flood: Flood) -> int:
    """Send until nobody takes it, or FLOOD bytes; nothing is read meanwhile."""
    sent = number = 0
    sock.settimeout(STALLED)
    with suppress(OSError):
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        while sent < FLOOD:
            frames = (f for i in range(number, number + 500) for f in flood(i))
            data = b"".join(frame.serialize() for frame in frames)
            sock.sendall(data)
            sent, number = sent + len(data), number + 500
    return sent


def ended(sock: socket.socket) -> bool:
    """Whether the other side closes, whatever it says before; what it was sent it may have read."""
    with suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass
    return True


@pytest.mark.parametrize("flood", [pings, settings, resets, continuations, empty_data])
def test_a_flood_of_frames_is_ended_and_harms_nobody_else(world: World, flood: Flood) -> None:
    sidecar, _ = world
    before = {pid: resident(pid) for pid in sidecar.workers()}
    with (
        http_clients.Client(http1=False, http2=True, timeout=20) as other,
        connect(sidecar.port) as sock,
    ):
        assert other.get(sidecar.url).text == "hello"
        sent = pour(sock, flood)
        start = time.monotonic()
        assert other.get(sidecar.url).text == "hello"
        assert time.monotonic() - start < STALLED
        grown = [resident(pid) - size for pid, size in before.items()]
        # Workers read on for a second, so that the client hears why it is let go.
        by_workers = sidecar.settings["engine"] == "mitmproxy"
        assert sent < FLOOD or (by_workers and ended(sock))
    assert max(grown) < GROWTH


def test_a_tls_handshake_that_never_ends_is_cut(world: World) -> None:
    sidecar, context = world
    port = int(sidecar.settings["listeners"]["tls"]["listen"].rpartition(":")[2])
    with connect(port) as silent, connect(port) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        start = time.monotonic()
        assert is_cut_off(slow)
        assert 0.9 < time.monotonic() - start < 9
        with connect(port) as sock, context.wrap_socket(sock, server_hostname="localhost"):
            pass
        silent.close()
