"""Thousands of connections at once, and what they cost the process that holds them."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.http1_wire import connect, read_answer

MEGA = 1 << 20


@contextmanager
def descriptors(wanted: int) -> Iterator[None]:
    """So many open files for this process, and for those it starts; else the test is skipped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, RLIMIT_NOFILE allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def open_connections(port: int, size: int) -> Iterator[list[socket.socket]]:
    """So many connections on which nothing is said yet."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(port)) for _ in range(size)]


def status_of_request(sock: socket.socket, path: str = "/") -> int:
    """The status of a request that leaves the connection open."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode())
    return read_answer(sock).status


def is_cut_off(sock: socket.socket) -> bool:
    """Whether nothing comes but the connection's end."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def seconds_to_serve(port: int, requests: int) -> list[float]:
    """How long each of so many requests took, on a new connection each; sorted."""
    took = []
    for _ in range(requests):
        start = time.monotonic()
        with connect(port) as sock:
            assert status_of_request(sock) == 200
        took.append(time.monotonic() - start)
    return sorted(took)


def resident(pid: int, what: str = "VmRSS") -> int:
    """Bytes of a process; `VmHWM` is the most there ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
