"""TLS and HTTP/2, on either side."""

import asyncio
import hashlib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support import http_clients
from tests.support.cases import each
from tests.support.http1_wire import Scripted, connect, echo, scripted
from tests.support.http2_wire import Fields, Message, Peer, answering, request
from tests.support.passthrough_sidecar import MEGA, PEOPLE, VICTIM, digest, each_person, memory
from tests.support.programs import Nginx, Sidecar, free_port, program

FIVE = bytes(range(256)) * (5 * MEGA // 256)
HASH = hashlib.sha256(FIVE).hexdigest()
NGINX = """
    listen 127.0.0.1:TLS ssl http2;
    listen 127.0.0.1:H2C http2;
    ssl_certificate DIR/upstream.pem; ssl_certificate_key DIR/upstream.pem;
    http2_max_concurrent_streams 32;
    location /big { alias DIR/big; }
    add_header X-Seen "$http_x_counterfault";
    location / { return 200 "$server_protocol $host $uri"; }
"""


@dataclass(frozen=True, slots=True)
class World:
    """Listeners are named <what clients speak>-<what the upstream speaks>."""

    engine: str
    sidecar: Sidecar
    nginx: Nginx
    ca: Path
    stage: Scripted

    def port(self, listener: str) -> int:
        return int(self.sidecar.settings["listeners"][listener]["listen"].rpartition(":")[2])

    def url(self, listener: str) -> str:
        scheme = "https" if "tls" in self.sidecar.settings["listeners"][listener] else "http"
        return f"{scheme}://localhost:{self.port(listener)}"

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("tls")
    (directory / "big").write_bytes(FIVE)
    ours, theirs, strange = trustme.CA(), trustme.CA(), trustme.CA()
    for name, ca in (("ours", ours), ("theirs", theirs), ("strange", strange)):
        ca.cert_pem.write_to_path(str(directory / f"{name}-ca.pem"))
    ours.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "listener.pem")
    )
    theirs.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "upstream.pem")
    )
    ports = {name: str(free_port()) for name in ("TLS", "H2C")}
    conf = NGINX.replace("DIR", str(directory))
    for name, port in ports.items():
        conf = conf.replace(f":{name} ", f":{port} ")
    https = f"https://localhost:{ports['TLS']}"
    served = {"cert": str(directory / "listener.pem"), "key": str(directory / "listener.pem")}
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", conf)
        stack.callback(nginx.stop)
        e, d, stage = (stack.enter_context(scripted(script)) for script in (echo, digest, echo))
        upstreams = {
            "tls-nginx": (nginx.url, True, None),
            "tls-echo": (e.url, True, None),
            "tls-digest": (d.url, True, None),
            "tls-https": (https, True, "theirs-ca.pem"),
            "tls-strange": (https, True, "strange-ca.pem"),
            "tls-system": (https, True, None),
            "tls-misnamed": (https.replace("localhost", "127.0.0.1"), True, "theirs-ca.pem"),
            "tls-down": (f"http://127.0.0.1:{free_port()}", True, None),
            "plain-https": (https, False, "theirs-ca.pem"),
            "plain-strange": (https, False, "strange-ca.pem"),
            "plain-h2c": (f"http://127.0.0.1:{ports['H2C']}", False, None),
            "plain-stage": (stage.url, False, None),
        }
        listeners = {
            name: {
                "listen": f"127.0.0.1:{free_port()}",
                "upstream": url,
                **({"tls": dict(served)} if tls else {}),
                **({"ca": str(directory / ca)} if ca else {}),
            }
            for name, (url, tls, ca) in upstreams.items()
        }
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        sidecar.start().running(
            faults=[{"at": at, "error": 500, "match": {"path": "/faulty"}} for at in listeners]
        )
        yield World(engine, sidecar, nginx, directory / "ours-ca.pem", stage)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


@pytest.fixture(params=["HTTP/2", "HTTP/1.1"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(world: World, version: str) -> Iterator[httpx.Client]:
    """Speaks that version over TLS, and HTTP/1 without."""
    with httpx.Client(
        http2=version == "HTTP/2", verify=world.context, trust_env=False, timeout=20
    ) as client:
        yield client


@pytest.fixture
def h2c() -> Iterator[httpx.Client]:
    with http_clients.Client(http1=False, http2=True, timeout=20) as client:
        yield client


def curl(world: World, *args: str) -> bytes:
    """The answer's heads and body."""
    command = [program("curl"), "-sS", "-i", "--max-time", "30", "--noproxy", "*"]
    command += ["--cacert", str(world.ca), *args]
    return subprocess.run(command, check=True, capture_output=True).stdout


# --- TLS from clients


@each_person
def test_a_client_gets_what_it_would_without_tls(
    world: World, client: httpx.Client, version: str, person: dict[str, str]
):
    directly = client.get(f"{world.nginx.url}/a", headers={"host": "shop.test", **person})
    headers = {"host": "shop.test", **person}
    through = client.get(f"{world.url('tls-nginx')}/a", headers=headers)
    assert through.http_version == version
    assert (through.status_code, through.content) == (200, b"HTTP/1.1 shop.test /a")
    assert through.content == directly.content
    aside = {"date", "connection", "x-seen"}
    seen = [
        [(k.lower(), v) for k, v in a.headers.raw if k.lower().decode() not in aside]
        for a in (through, directly)
    ]
    assert seen[0] == seen[1]
    assert ("x-seen" in through.headers) == (person is PEOPLE["control"])


@each("option", ["--http2", "--http1.1"])
def test_curl_is_served_in_the_http_it_asks_for(world: World, option: str):
    answer = curl(world, option, f"{world.url('tls-nginx')}/a")
    expected = b"HTTP/2 200 \r\n" if option == "--http2" else b"HTTP/1.1 200 OK\r\n"
    assert answer.startswith(expected)


def test_faults_reach_both_versions(world: World, client: httpx.Client):
    assert client.get(f"{world.url('tls-nginx')}/faulty", headers=VICTIM).status_code == 500
    assert client.get(f"{world.url('tls-nginx')}/other", headers=VICTIM).status_code == 200


def test_a_client_that_does_not_trust_us_is_told_nothing(world: World):
    with httpx.Client(trust_env=False) as stranger, pytest.raises(httpx.ConnectError):
        stranger.get(world.url("tls-nginx"))


def test_an_upstream_that_is_away_is_a_502(world: World, client: httpx.Client):
    for method in ("GET", "POST"):
        assert client.request(method, world.url("tls-down")).status_code == 502


# --- TLS to upstreams


@each_person
def test_an_https_upstream_is_spoken_to_in_the_clients_http(
    world: World, client: httpx.Client, version: str, person: dict[str, str]
):
    answer = client.get(f"{world.url('tls-https')}/b", headers={"host": "shop.test", **person})
    said = "HTTP/2.0" if version == "HTTP/2" else "HTTP/1.1"
    assert (answer.status_code, answer.text) == (200, f"{said} shop.test /b")
    assert ("x-seen" in answer.headers) == (person is PEOPLE["control"])


@each_person
def test_clients_without_tls_reach_an_https_upstream(world: World, person: dict[str, str]):
    with http_clients.Client() as client:
        answer = client.get(f"{world.url('plain-https')}/b", headers=person)
    assert (answer.status_code, answer.text) == (200, "HTTP/1.1 localhost /b")


@each("listener", ["tls-strange", "tls-system", "tls-misnamed", "plain-strange"])
def test_an_upstream_that_cannot_be_verified_is_not_spoken_to(
    world: World, client: httpx.Client, listener: str
):
    before = world.nginx.access.read_bytes()
    for content in (None, b"secret"):
        answer = client.post(f"{world.url(listener)}/secret", content=content)
        assert answer.status_code == 502
    assert client.get(f"{world.url('tls-https')}/after").status_code == 200
    added = world.nginx.access.read_bytes()[len(before) :]
    assert b"/secret" not in added


# --- HTTP/2


@each("listener", ["tls-nginx", "tls-https", "plain-h2c"])
def test_concurrent_streams_of_many_people_each_get_their_own(world: World, listener: str):
    people = [VICTIM, *PEOPLE.values()] * 50

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            http1=False,
            http2=True,
            verify=world.context,
            trust_env=False,
            limits=httpx.Limits(max_connections=1),
            timeout=30,
        ) as client:
            url = world.url(listener)
            requests = (
                client.get(f"{url}/faulty" if person is VICTIM else f"{url}/{i}", headers=person)
                for i, person in enumerate(people)
            )
            return await asyncio.gather(*requests)

    for i, (person, answer) in enumerate(zip(people, asyncio.run(all_at_once()), strict=True)):
        assert answer.http_version == "HTTP/2"
        assert answer.status_code == (500 if person is VICTIM else 200)
        assert person is VICTIM or answer.text.endswith(f" /{i}")


@each("known_length", [True, False])
def test_five_megabytes_go_up(world: World, client: httpx.Client, known_length: bool):
    parts = (FIVE[i : i + 50_000] for i in range(0, len(FIVE), 50_000))
    answer = client.post(world.url("tls-digest"), content=FIVE if known_length else parts)
    assert answer.text == HASH


@each("listener", ["tls-nginx", "tls-https"])
def test_five_megabytes_come_down(world: World, client: httpx.Client, listener: str):
    assert client.get(f"{world.url(listener)}/big").content == FIVE


@each_person
def test_http_2_becomes_http_1_of_the_usual_form(world: World, person: dict[str, str]):
    """The authority is the Host, cookies are one header, a body without a length is in chunks."""
    cookies = (
        "-H",
        "Cookie: a=1; b=2",
        *(f for k, v in person.items() for f in ("-H", f"{k}: {v}")),
    )
    answer = curl(world, "--http2", *cookies, f"{world.url('tls-echo')}/x%2Fy?a=%26")
    got = answer.partition(b"\r\n\r\n")[2].lower()
    assert got.startswith(b"get /x%2fy?a=%26 http/1.1\r\nhost: localhost:")
    assert got.count(b"\r\ncookie: a=1; b=2\r\n") == 1


def test_many_requests_of_one_client_leave_nothing_behind(world: World):
    with httpx.Client(http2=True, verify=world.context, trust_env=False) as client:
        url = world.url("tls-nginx")
        for _ in range(100):
            client.get(url)
        before = memory(world.sidecar, "VmRSS")
        for _ in range(600):
            client.get(url)
        assert memory(world.sidecar, "VmRSS") < before + MEGA  # a kept connection is 3 kB


# --- HTTP/2 without TLS


@each_person
def test_h2c_reaches_an_upstream_that_speaks_it(
    world: World, h2c: httpx.Client, person: dict[str, str]
):
    answer = h2c.get(f"{world.url('plain-h2c')}/c", headers={"host": "shop.test", **person})
    assert answer.http_version == "HTTP/2"
    assert (answer.status_code, answer.text) == (200, "HTTP/2.0 shop.test /c")
    assert h2c.get(f"{world.url('plain-h2c')}/big").content == FIVE
    assert h2c.get(f"{world.url('plain-h2c')}/faulty", headers=VICTIM).status_code == 500


PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/t")]


def undated(world: World, headers: Fields) -> Fields:
    """Without the date that Envoy adds."""
    return [pair for pair in headers if world.engine != "envoy" or pair[0] != b"date"]


def test_trailers_and_interim_answers_pass_over_http_2(world: World):
    got = []

    def answer(peer: Peer, stream: int, message: Message) -> None:
        got.append(message)
        peer.h2.send_headers(stream, [(b":status", b"103"), (b"link", b"</a.css>")])
        trailers = [(b"grpc-status", b"0"), (b"grpc-message", b"fine")]
        peer.send(stream, [(b":status", b"200")], b"hello", trailers)

    world.stage.play(answering(answer))
    with connect(world.port("plain-stage")) as sock:
        sent = [*PSEUDO, (b"te", b"trailers"), (b"content-type", b"application/grpc")]
        seen = request(sock, sent, b"body", [(b"x-sum", b"42")])
    assert (got[0].body, got[0].trailers) == (b"body", [(b"x-sum", b"42")])
    assert (b"te", b"trailers") in got[0].headers
    assert seen.interim == [[(b":status", b"103"), (b"link", b"</a.css>")]]
    assert (undated(world, seen.headers), seen.body) == ([(b":status", b"200")], b"hello")
    assert seen.trailers == [(b"grpc-status", b"0"), (b"grpc-message", b"fine")]


def test_an_answer_of_trailers_only_passes(world: World):
    """As gRPC answers a call that it refuses."""
    head = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"12")]
    world.stage.play(answering(lambda peer, stream, _: peer.send(stream, head)))
    with connect(world.port("plain-stage")) as sock:
        seen = request(sock, PSEUDO, b"body")
    assert (undated(world, seen.headers), seen.body, seen.trailers) == (head, b"", [])


def test_a_stream_that_the_upstream_resets_is_reset_and_no_other(world: World):
    def answer(peer: Peer, stream: int, message: Message) -> None:
        if (b":path", b"/reset") in message.headers:
            peer.h2.send_headers(stream, [(b":status", b"200")])
            peer.h2.reset_stream(stream, 2)
            peer.flush()
        else:
            peer.send(stream, [(b":status", b"200")], b"fine")

    world.stage.play(answering(answer))
    with connect(world.port("plain-stage")) as sock:
        peer = Peer(sock, client=True)
        peer.send(1, [*PSEUDO[:3], (b":path", b"/reset")])
        peer.send(3, PSEUDO)
        while not (peer.messages[1].reset and peer.messages[3].ended):
            peer.read()
    assert peer.messages[3].body == b"fine"
