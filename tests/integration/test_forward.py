"""Forward listeners: an explicit proxy, which reads the TLS of the hosts an experiment names."""

import hashlib
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.support.conformance import primary_engine
from tests.support.http1_wire import connect, echo, read_head, scripted
from tests.support.passthrough_sidecar import PEOPLE, VICTIM
from tests.support.programs import Nginx, Sidecar, free_port, program, until

NGINX = """
    listen 127.0.0.1:TLS ssl http2;
    ssl_certificate DIR/upstream.pem; ssl_certificate_key DIR/upstream.pem;
    location / { return 200 "$server_protocol $host $uri"; }
"""
FAULTS = [
    {"at": "out", "error": 503, "match": {"host": "LocalHost"}},
    {"at": "strange", "error": 503, "match": {"host": "localhost", "path": "/faulty"}},
]


@dataclass(frozen=True, slots=True)
class World:
    """`out` verifies nginx's certificate with the right CA, `strange` with another one."""

    sidecar: Sidecar
    nginx: Nginx
    directory: Path
    tls: int

    def proxy(self, listener: str = "out") -> str:
        return f"http://{self.sidecar.settings['listeners'][listener]['listen']}"

    def url(self, host: str = "localhost") -> str:
        return f"https://{host}:{self.tls}"

    @property
    def state(self) -> Path:
        return Path(self.sidecar.settings["state_dir"])

    @property
    def ours(self) -> Path:
        """What applications are told to trust."""
        return self.state / "ca" / "counterfault-ca-cert.pem"

    @property
    def theirs(self) -> Path:
        return self.directory / "theirs-ca.pem"

    def client(self, trusted: Path, listener: str = "out", **options: Any) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(trusted))
        proxy = self.proxy(listener)
        return httpx.Client(proxy=proxy, verify=context, trust_env=False, timeout=20, **options)

    def shown(self, host: str) -> str:
        """Who has signed the certificate that a client of `out` gets: `ours` or `theirs`."""
        for name, ca in (("ours", self.ours), ("theirs", self.theirs)):
            try:
                with self.client(ca) as client:
                    client.get(self.url(host))
            except httpx.ConnectError:
                continue
            return name
        return "nobody"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("forward")
    theirs, strange = trustme.CA(), trustme.CA()
    for name, ca in (("theirs", theirs), ("strange", strange)):
        ca.cert_pem.write_to_path(str(directory / f"{name}-ca.pem"))
    theirs.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "upstream.pem")
    )
    port = free_port()
    listeners = {
        name: {
            "listen": f"127.0.0.1:{free_port()}",
            "mode": "forward",
            "ca": str(directory / f"{ca}-ca.pem"),
        }
        for name, ca in (("out", "theirs"), ("strange", "strange"))
    }
    with ExitStack() as stack:
        nginx = Nginx(
            directory / "nginx", NGINX.replace("DIR", str(directory)).replace("TLS", str(port))
        )
        stack.callback(nginx.stop)
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        sidecar.start()
        yield World(sidecar, nginx, directory, port)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


@pytest.fixture
def running(world: World) -> World:
    if world.sidecar.state() != "running":
        world.sidecar.running(faults=FAULTS)
    return world


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(running: World, version: str) -> Iterator[httpx.Client]:
    """Trusts our authority."""
    with running.client(running.ours, http2=version == "HTTP/2") as client:
        yield client


def curl(*args: str) -> subprocess.CompletedProcess[bytes]:
    command = [program("curl"), "-sS", "-i", "--max-time", "20", "--noproxy", "", *args]
    return subprocess.run(command, capture_output=True, check=False)


def exchanged(port: int, sent: bytes) -> bytes:
    with connect(port) as sock:
        sock.sendall(sent)
        return read_head(sock)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# --- The life of a run: first, because the other tests start one that stays


def test_the_named_host_is_intercepted_during_the_run_and_no_other(world: World):
    assert world.ours.exists()
    assert world.shown("localhost") == "theirs"
    world.sidecar.running("early", faults=FAULTS)
    assert (world.shown("localhost"), world.shown("127.0.0.1")) == ("ours", "theirs")
    world.sidecar.post("/api/experiments/early/stop")
    assert world.shown("localhost") == "theirs"
    (world.sidecar.directory / "experiments" / "early.yaml").unlink()


def test_a_metric_that_names_a_host_is_enough(world: World):
    metric = {"name": "m", "at": "out", "match": {"host": "localhost"}}
    metric["success_rate"] = {"drop": "1pp"}
    faults = [{"at": "inbound", "error": 503}]
    world.sidecar.running("early", run=2, faults=faults, steady_state=[metric])
    assert world.shown("localhost") == "ours"
    (world.sidecar.directory / "experiments" / "early.yaml").unlink()
    until(lambda: world.shown("localhost") == "theirs")


# --- HTTP


def test_plain_http_passes(running: World):
    for name, headers in PEOPLE.items():
        with running.client(running.ours) as client:
            answer = client.get(f"{running.nginx.url}/a", headers=headers)
        assert (answer.status_code, answer.text) == (200, "HTTP/1.1 127.0.0.1 /a"), name


def test_plain_http_is_faulted_by_host_for_the_experiment_only(running: World):
    url = running.nginx.url.replace("127.0.0.1", "localhost")
    with running.client(running.ours) as client:
        before = running.sidecar.metric("counterfault_requests_total", listener="out", code="5xx")
        assert client.get(url, headers=VICTIM).status_code == 503
        assert client.get(running.nginx.url, headers=VICTIM).status_code != 503
        for headers in PEOPLE.values():
            assert client.get(url, headers=headers).status_code != 503
    labels = {"listener": "out", "code": "5xx"}
    until(lambda: running.sidecar.metric("counterfault_requests_total", **labels) == before + 1)


def test_the_upstream_gets_what_it_would_without_a_proxy(running: World):
    with scripted(echo) as server:
        answer = curl("--proxy", running.proxy(), f"{server.url}/x%2Fy?a=%26", "-U", "me:secret")
        directly = curl(f"{server.url}/x%2Fy?a=%26")
    got, expected = (a.stdout.partition(b"\r\n\r\n")[2].lower() for a in (answer, directly))
    assert got == expected
    assert got.startswith(b"get /x%2fy?a=%26 http/1.1\r\nhost: 127.0.0.1:")


def test_the_target_outranks_the_host_header(running: World):
    with scripted(echo) as server:
        target = server.url.encode()
        sent = b"GET %s/ HTTP/1.1\r\nHost: elsewhere\r\nA: b\r\n\r\n" % target
        with connect(port_of(running.proxy())) as sock:
            sock.sendall(sent)
            read_head(sock)
            got = sock.recv(65536)
    assert b"elsewhere" not in got
    assert b"Host: 127.0.0.1:" in got


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: OURSELVES\r\n\r\n",
        b"GET http://OURSELVES/ HTTP/1.1\r\nHost: OURSELVES\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_proxy_request_is_refused_and_makes_no_loop(running: World, sent: bytes):
    ourselves = running.proxy().removeprefix("http://").encode()
    answer = exchanged(port_of(running.proxy()), sent.replace(b"OURSELVES", ourselves))
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_connect_is_refused_at_other_listeners(running: World, engine: str):
    refused = b"HTTP/1.1 404 " if engine == "envoy" else b"HTTP/1.1 400 "
    sent = b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % running.tls
    assert exchanged(running.sidecar.port, sent).startswith(refused)


# --- Tunnels


def test_a_tunnel_shows_the_upstreams_own_certificate(running: World):
    pem = (running.directory / "upstream.pem").read_text()
    own = ssl.PEM_cert_to_DER_cert(
        re.findall(r"-----BEGIN CERT.*?-----END CERT\S+\n", pem, re.S)[0]
    )
    with connect(port_of(running.proxy())) as sock:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % running.tls)
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        context = ssl.create_default_context(cafile=str(running.theirs))
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
            shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    assert hashlib.sha256(shown).hexdigest() == hashlib.sha256(own).hexdigest()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_passes_through_a_tunnel(running: World, version: str):
    trust = ("--cacert", str(running.theirs))
    answer = curl(version, "--proxy", running.proxy(), *trust, f"{running.url('127.0.0.1')}/a")
    assert answer.returncode == 0
    said = "HTTP/2.0" if version == "--http2" else "HTTP/1.1"
    assert answer.stdout.endswith(f"{said} 127.0.0.1 /a".encode())


def test_a_server_may_speak_first_in_a_tunnel(running: World):
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"hello\n" + sock.recv(5))

    with scripted(greet) as server, connect(port_of(running.proxy())) as sock:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port_of(server.url))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"12345")
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"hello\n12345"


def test_a_client_that_has_sent_everything_is_still_answered(running: World):
    def answer(sock: socket.socket) -> None:
        sock.sendall(b"got " + b"".join(iter(lambda: sock.recv(100), b"")))

    with scripted(answer) as server, connect(port_of(running.proxy())) as sock:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\nearly" % port_of(server.url))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b" late")
        sock.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"got early late"


def test_one_client_of_many_hosts_keeps_few_connections(running: World):
    def fine(sock: socket.socket) -> None:
        while read_head(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with ExitStack() as stack:
        sock = stack.enter_context(connect(port_of(running.proxy())))
        servers = [stack.enter_context(scripted(fine)) for _ in range(30)]
        for server in servers * 2:
            sock.sendall(b"GET %s/ HTTP/1.1\r\n\r\n" % server.url.encode())
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        until(lambda: sum(server.opened - server.closed for server in servers) <= 10)


def test_what_is_not_tls_passes_a_tunnel_to_a_named_host(running: World):
    with scripted(echo) as server, connect(port_of(running.proxy())) as sock:
        sock.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % port_of(server.url))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")


def test_connect_to_a_dead_host_is_a_502(running: World):
    sent = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % free_port()
    assert exchanged(port_of(running.proxy()), sent).startswith(b"HTTP/1.1 502 ")


# --- Interception


def test_the_experiment_gets_the_fault_and_nobody_else(
    running: World, client: httpx.Client, version: str
):
    answer = client.get(f"{running.url()}/a", headers=VICTIM)
    assert answer.status_code == 503
    for headers in PEOPLE.values():
        answer = client.get(f"{running.url()}/a", headers=headers)
        assert answer.status_code == 200
        assert answer.http_version == version
        upstreams = "HTTP/2.0" if version == "HTTP/2" else version
        assert answer.text == f"{upstreams} localhost /a"


def test_requests_inside_are_counted_each_and_tunnels_not(running: World):
    def counted(listener: str, **labels: str) -> float:
        name = "counterfault_requests_total"
        return running.sidecar.metric(name, listener=listener, **labels)

    with running.client(running.ours, "strange") as client:
        for _ in range(5):
            client.get(running.url(), headers=PEOPLE["control"])
    until(lambda: counted("strange", cohort="control", code="5xx", experiment="x") == 5)
    before = counted("strange")
    with running.client(running.theirs, "strange") as client:
        client.get(running.url("127.0.0.1"))
    with running.client(running.ours, "strange") as client:
        client.get(running.url())
    until(lambda: counted("strange") == before + 1)


def test_an_upstream_that_cannot_be_verified_is_a_502(running: World):
    with running.client(running.ours, "strange") as client:
        assert client.get(f"{running.url()}/secret").status_code == 502
        assert client.get(f"{running.url()}/faulty", headers=VICTIM).status_code == 503
    assert b"/secret" not in running.nginx.access.read_bytes()


def test_a_dead_host_that_is_intercepted_is_a_502(running: World, client: httpx.Client):
    assert client.get(f"https://localhost:{free_port()}/").status_code == 502


def test_connect_inside_is_refused(running: World):
    with connect(port_of(running.proxy())) as sock:
        sock.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % running.tls)
        read_head(sock)
        context = ssl.create_default_context(cafile=str(running.ours))
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            secure.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
            assert secure.recv(65536).startswith(b"HTTP/1.1 400 ")


# --- The authority


@primary_engine("mitmproxy")
def test_the_authority_is_made_once_and_for_nobody_else_to_read(
    make_sidecar: Callable[..., Sidecar], engine: str
):
    out = {"out": {"listen": f"127.0.0.1:{free_port()}", "mode": "forward"}}
    sidecar = make_sidecar("http://127.0.0.1:1", engine=engine, listeners=out).start()
    ca = Path(sidecar.settings["state_dir"]) / "ca"
    assert str(ca / "counterfault-ca-cert.pem") in sidecar.log.read_text()
    assert ca.stat().st_mode & 0o777 == 0o700
    files = {path: path.read_bytes() for path in ca.iterdir()}
    assert sorted(p.name for p in files) == ["counterfault-ca-cert.pem", "counterfault-ca.pem"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert b"PRIVATE" not in files[ca / "counterfault-ca-cert.pem"]
    sidecar.stop()
    sidecar.start()
    assert {path: path.read_bytes() for path in ca.iterdir()} == files


def test_an_authority_of_ones_own_signs(
    world: World, make_sidecar: Callable[..., Sidecar], engine: str, tmp_path: Path
):
    own = trustme.CA()
    out = {
        "listen": f"127.0.0.1:{free_port()}",
        "mode": "forward",
        "ca": str(world.theirs),
    }
    listeners = {"out": out}
    settings = {"engine": engine, "listeners": listeners, "forward_ca": "own.pem"}
    sidecar = make_sidecar("http://127.0.0.1:1", **settings)
    own.private_key_pem.write_to_path(str(sidecar.directory / "own.pem"))
    own.cert_pem.write_to_path(str(sidecar.directory / "own.pem"), append=True)
    own.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    sidecar.start().running(faults=FAULTS[:1])
    context = ssl.create_default_context(cafile=str(tmp_path / "trusted.pem"))
    with httpx.Client(proxy=f"http://{out['listen']}", verify=context, trust_env=False) as client:
        assert client.get(world.url(), headers=PEOPLE["control"]).status_code == 200
        assert client.get(world.url(), headers=VICTIM).status_code == 503
    assert not (Path(sidecar.settings["state_dir"]) / "ca").exists()


@primary_engine("envoy")
def test_without_an_authority_everything_is_tunnelled(
    world: World, make_sidecar: Callable[..., Sidecar], engine: str
):
    listen = f"127.0.0.1:{free_port()}"
    listeners = {"out": {"listen": listen, "mode": "forward"}}
    sidecar = make_sidecar("http://127.0.0.1:1", engine=engine, listeners=listeners)
    state = Path(sidecar.settings["state_dir"])
    state.mkdir()
    (state / "ca").touch()
    sidecar.start().running(faults=FAULTS[:1])
    context = ssl.create_default_context(cafile=str(world.theirs))
    with httpx.Client(proxy=f"http://{listen}", verify=context, trust_env=False) as client:
        assert client.get(world.url(), headers=VICTIM).status_code == 200
    assert "nothing is intercepted" in sidecar.log.read_text()
