"""A sidecar in front of several real upstreams, while an experiment goes on at each of them."""

import hashlib
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from gzip import compress as gzipped
from pathlib import Path

import brotli  # type: ignore[import-untyped]

from tests.support.cases import each
from tests.support.http1_wire import (
    Scripted,
    connect,
    echo,
    fields,
    httpbin,
    read_chunks,
    read_head,
    scripted,
)
from tests.support.programs import Nginx, Sidecar, free_port, user

MEGA = 1 << 20
BIG = 20 * MEGA
# The headers of people who must not notice us.
PEOPLE = {
    "control": {"x-user-id": user("control")},
    "bystander": {"x-user-id": user("bystander")},
    "nobody": {},
}
each_person = each("person", PEOPLE.values(), ids=PEOPLE)
# Whose requests to /faulty are answered with 500.
VICTIM = {"x-user-id": user("experiment")}
# nginx says nothing at all to these two.
STATUSES = sorted(set(range(200, 600)) - {444, 499})
CODINGS = {"gzip": gzipped, "deflate": zlib.compress, "br": brotli.compress}
TEXT = b"the same words again and again, " * 400

_CODES = "\n".join(f'location = /code/{c} {{ return {c} "code {c}"; }}' for c in STATUSES)
_NGINX = """
    merge_slashes off; keepalive_timeout 60; default_type text/plain;
    location /target { return 200 "$request_uri"; }
    location /method { return 200 "$request_method"; }
    location /cookies { add_header Set-Cookie "a=1"; add_header Set-Cookie "b=2"; return 200; }
    location /gzip { add_header Content-Encoding gzip; }
    location /deflate { add_header Content-Encoding deflate; }
    location /br { add_header Content-Encoding br; }
    location /live { gzip on; gzip_min_length 1; gzip_types *; alias WWW/big; }
    location /once { keepalive_timeout 0; return 200 "once"; }
    location /silent { return 444; }
    location / { try_files $uri $uri/ @hello; }
    location @hello { return 200 "hello"; }
"""


def digest(sock: socket.socket) -> None:
    """Answer each request with its body's hash."""
    while head := read_head(sock):
        found = {name.lower(): value for name, value in fields(head)}
        if b"expect" in found:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = hashlib.sha256()
        if found.get(b"transfer-encoding") == b"chunked":
            for chunk in read_chunks(sock):
                body.update(chunk)
        left = int(found.get(b"content-length", b"0"))
        while left and (data := sock.recv(min(left, 65536))):
            body.update(data)
            left -= len(data)
        said = body.hexdigest().encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))


def undated(raw: bytes) -> bytes:
    """An answer without the date that Envoy adds to those that have none."""
    return re.sub(rb"(?m)^date: .* GMT\r\n", b"", raw)


def lines(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def memory(sidecar: Sidecar, what: str) -> int:
    """VmRSS, or VmHWM: the most there ever was; of the largest worker, in bytes."""
    kilobytes = [
        int(line.split()[1])
        for pid in sidecar.workers()
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(what)
    ]
    return 1024 * max(kilobytes)


@dataclass(frozen=True, slots=True)
class World:
    """The sidecar has a listener for each upstream, named like it."""

    engine: str
    sidecar: Sidecar
    direct: dict[str, str]
    """The upstreams' own addresses; nobody is at `down`."""
    www: Path
    stage: Scripted
    """The upstream of that name, which acts as a test tells it to."""

    def through(self, upstream: str) -> str:
        return f"http://{self.sidecar.settings['listeners'][upstream]['listen']}"

    def connect(self, upstream: str) -> socket.socket:
        return connect(port_of(self.through(upstream)))

    def counted(self, code: str) -> float:
        """Requests of bystanders at the stage."""
        labels = {"listener": "stage", "cohort": "bystander", "code": code}
        return self.sidecar.metric("counterfault_requests_total", **labels)

    def memory(self, what: str) -> int:
        return memory(self.sidecar, what)


@contextmanager
def passthrough_world(directory: Path, engine: str) -> Iterator[World]:
    www = directory / "nginx" / "www"
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", _NGINX.replace("WWW", str(www)) + _CODES)
        stack.callback(nginx.stop)
        _fill(www)
        application = stack.enter_context(httpbin())
        echoing, hashing, stage = (
            stack.enter_context(scripted(script)) for script in (echo, digest, echo)
        )
        direct = {
            "nginx": nginx.url,
            "httpbin": application,
            "echo": echoing.url,
            "digest": hashing.url,
            "stage": stage.url,
            "down": f"http://127.0.0.1:{free_port()}",
        }
        listeners = {
            name: {"listen": f"127.0.0.1:{free_port()}", "upstream": url}
            for name, url in direct.items()
        }
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        sidecar.start().running(
            faults=[{"at": name, "error": 500, "match": {"path": "/faulty"}} for name in direct]
        )
        yield World(engine, sidecar, direct, www, stage)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def _fill(www: Path) -> None:
    (www / "dir").mkdir()
    (www / "file").write_bytes(bytes(range(256)) * 40)
    (www / "big").write_bytes(b"0123456789abcdef" * (BIG // 16))
    for coding, compress in CODINGS.items():
        (www / coding).write_bytes(compress(TEXT))
