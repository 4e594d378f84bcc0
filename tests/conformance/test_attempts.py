"""Clients and meshes go on as they do: connections stay open, and what fails is tried again."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import http_clients
from tests.support.fresh_run import Runs
from tests.support.http1_wire import connect, read_answer
from tests.support.http2_wire import Peer
from tests.support.open_resources import leaves_nothing
from tests.support.programs import Nginx, Sidecar, free_port, program, until

ERROR = {"error": 503}
HANG = {"drop": {"mode": "hang", "hang": "1h"}}
# What a mesh does with a 503, or without an answer: it tries another one of its two.
MESH = """
    location / {
        proxy_pass http://pods; proxy_http_version 1.1; proxy_read_timeout 300ms;
        proxy_next_upstream error timeout http_503; proxy_next_upstream_tries 2;
    }
"""


@dataclass(kw_only=True)
class World(Runs):
    """A sidecar, a real client's mesh before it and a service behind it."""

    service: Nginx
    mesh: Nginx

    def requests(self, **labels: str) -> float:
        return self.sidecar.metric("counterfault_requests_total", **labels)

    def tags(self) -> list[str]:
        """Whom the service has seen, request by request."""
        lines = self.service.access.read_text().splitlines()
        return [line.split("|")[2] for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("attempts")
    with ExitStack() as stack:
        behind = free_port()
        conf = f'listen 127.0.0.1:{behind} http2; location / {{ return 200 "hello"; }}'
        service = Nginx(directory / "service", conf)
        stack.callback(service.stop)
        h2c = free_port()
        second = {"listen": f"127.0.0.1:{h2c}", "upstream": f"http://127.0.0.1:{behind}"}
        settings = {"engine": engine, "listeners": {"h2c": second}}
        sidecar = Sidecar(directory / "sidecar", service.url, settings)
        stack.callback(sidecar.stop)
        pods = "".join(f"server 127.0.0.1:{sidecar.port} max_fails=0;" for _ in range(2))
        mesh = Nginx(directory / "mesh", MESH, f"upstream pods {{ {pods} }}")
        stack.callback(mesh.stop)
        world = World(sidecar.start(), service=service, mesh=mesh)
        world.begin({**ERROR, "dose": {"first": 1}})  # with Envoy, for workers to be there
        world.stop()
        stack.enter_context(leaves_nothing(sidecar))
        yield world


def status(sock: socket.socket, who: str) -> int:
    sock.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id: {who}\r\n\r\n".encode())
    return read_answer(sock).status


def h2_status(peer: Peer, who: str) -> bytes:
    stream = peer.h2.get_next_available_stream_id()
    head = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
    peer.send(stream, [*head, (b"x-user-id", who.encode())])
    while not peer.messages[stream].ended:
        peer.read()
    return dict(peer.messages[stream].headers)[b":status"]


def test_an_open_connection_gets_the_fault_with_its_next_request_and_loses_it(
    world: World,
) -> None:
    with connect(world.sidecar.port) as one, connect(world.port("h2c")) as other:
        peer = Peer(other, client=True)
        hit, spared = world.user(), world.user("control")

        def both(who: str) -> tuple[int, bytes]:
            return status(one, who), h2_status(peer, who)

        assert both(hit) == both(spared) == (200, b"200")
        world.begin(ERROR)
        assert both(hit) == (503, b"503")
        assert both(spared) == (200, b"200")
        world.stop()
        assert both(hit) == (200, b"200")


LATE = {"latency": "500ms"}


@pytest.mark.parametrize(
    ("faults", "late"), [((LATE, ERROR), True), ((ERROR, LATE), False)], ids=["late", "at once"]
)
def test_several_faults_happen_in_their_order(
    world: World, faults: tuple[dict[str, Any], ...], late: bool
) -> None:
    """After an answer there is nothing to be late any more."""
    world.begin(*faults)
    failed = {"fault": "latency", "result": "failed"}
    before = world.faults(**failed)
    with connect(world.sidecar.port) as sock:
        start = time.monotonic()
        assert status(sock, world.user()) == 503
        assert (time.monotonic() - start > 0.45) == late
    if not late:
        until(lambda: world.faults(**failed) == before + 1)


def test_what_a_client_tries_again_is_the_same_users(world: World) -> None:
    world.begin({**ERROR, "dose": {"first": 1}})
    before, seen = world.requests(cohort="experiment"), len(world.tags())
    retrying = [program("curl"), "-s", "--noproxy", "*", "--retry", "2", "--retry-delay", "1"]
    asked = [*retrying, "-H", f"x-user-id: {world.user()}", world.sidecar.url]
    assert subprocess.run(asked, capture_output=True, check=True).stdout == b"hello"
    until(lambda: world.requests(cohort="experiment") == before + 2)
    (tag,) = world.tags()[seen:]
    assert tag.startswith("x.experiment.")


@pytest.mark.parametrize("fault", [ERROR, HANG], ids=["error", "hang"])
def test_what_a_mesh_tries_again_is_the_same_users(world: World, fault: dict[str, Any]) -> None:
    world.begin({**fault, "dose": {"first": 1}})
    before, seen = world.requests(cohort="experiment"), len(world.tags())
    for cohort in ("experiment", "control"):
        headers = {"x-user-id": world.user(cohort)}
        assert http_clients.get(world.mesh.url, headers=headers).text == "hello"
    until(lambda: world.requests(cohort="experiment") == before + 2)
    tried, spared = world.tags()[seen:]
    assert tried.startswith("x.experiment.")
    assert spared.startswith("x.control.")


def test_each_attempt_that_times_out_counts_and_ends_its_fault(world: World) -> None:
    world.begin(HANG)
    before = world.requests(cohort="experiment", code="error")
    headers = {"x-user-id": world.user()}
    assert http_clients.get(world.mesh.url, headers=headers).status_code == 504
    until(lambda: world.requests(cohort="experiment", code="error") == before + 2)
    until(world.nothing_active, 5)
