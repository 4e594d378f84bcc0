"""A sidecar of either engine with faults at every listener, and real clients that look at them."""

import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from counterfault.proxy.experiments.cohorts import Arcs, first_enrolment, salt_of
from tests.support.open_resources import Open, assert_nothing_left, open_when_idle
from tests.support.programs import Nginx, Sidecar, free_port, program, until

# Engines that run the table, and what they refuse of it: names of faults.
ENGINES: dict[str, frozenset[str]] = {"envoy": frozenset(), "mitmproxy": frozenset()}
BODY = bytes(range(256)) * 800  # 204,800 bytes
JSON = b'{"name": "tea", "price": 5, "tags": ["a", "b"], "stock": {"here": 3, "a/b": 1}}'
PATIENCE = 30.0

_NGINX = """
    listen 127.0.0.1:TLS ssl http2;
    listen 127.0.0.1:H2C http2;
    ssl_certificate DIR/upstream.pem; ssl_certificate_key DIR/upstream.pem;
    keepalive_timeout 300; client_body_buffer_size 1m; default_type application/octet-stream;
    rewrite ^/[^/]+(/.*)$ $1;
    location = /body { alias DIR/body; }
    location = /chunked { alias DIR/body; ssi on; ssi_types *; }
    location = /json { default_type application/json; alias DIR/json; }
    location = /upload { proxy_http_version 1.1; proxy_pass http://127.0.0.1:PLAIN/x/done; }
    location = /done { return 200 "done"; }
    location = /seen {
        add_header X-Added "$http_x_added"; add_header X-Gone "$http_x_gone";
        add_header X-Cache "hit"; return 200 "seen";
    }
    location / { return 200 "hello"; }
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw; `broken`: the answer did not come to its end."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: bool = False
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request."""

    target: str = "body"
    method: str = "GET"
    body: bytes = b""


@dataclass(slots=True)
class World:
    """A sidecar with a listener for each protocol, and what is behind it."""

    engine: str
    sidecar: Sidecar
    nginx: Nginx
    ca: Path
    groups: list[frozenset[str]]
    """The names of the cases in each experiment."""
    idle: Open = field(default_factory=Counter)
    """What is open while nobody is there."""
    plain: dict[Ask, Answer] = field(default_factory=dict)

    def url(self, protocol: str) -> str:
        listener = self.sidecar.settings["listeners"][LISTENERS[protocol]]
        return f"{'https' if 'tls' in listener else 'http'}://localhost:{port_of(listener)}"

    def ask(self, protocol: str, cohort: str, path: str, ask: Ask, skip: int = 0) -> Answer:
        """As a user of that cohort, with a real client of that protocol."""
        headers = {"x-user-id": self.user(cohort, path, skip), "x-gone": "soon"}
        return CLIENTS[protocol](f"{self.url(protocol)}{path}", headers, ask, self.ca)

    def user(self, cohort: str, path: str = "/x/", skip: int = 0) -> str:
        """A user of that cohort in the experiment whose rules have this path."""
        number = next((i for i, g in enumerate(self.groups) if path.split("/")[1] in g), 0)
        wanted = None if cohort == "bystander" else (f"x{number}", cohort)
        units = (f"user-{i}" for i in range(100_000))
        found = (unit for unit in units if self._enrolment(unit) == wanted)
        return next(islice(found, skip, None))

    def _enrolment(self, unit: str) -> tuple[str, str] | None:
        enrolment = first_enrolment(arcs(len(self.groups)))(unit.encode())
        return None if enrolment is None else (enrolment.experiment, str(enrolment.cohort))

    def direct(self, ask: Ask) -> Answer:
        """Without the sidecar."""
        if ask not in self.plain:
            url = f"{self.nginx.url}/x/{ask.target}"
            self.plain[ask] = curl(url, {"x-gone": "soon"}, ask, self.ca)
        return self.plain[ask]

    def seen(self, path: str) -> int:
        """How often the upstream has seen a path."""
        return self.nginx.access.read_text().count(f" {path} ")

    def faults(self, result: str, fault: str) -> float:
        return self.sidecar.metric("counterfault_faults_total", fault=fault, result=result)

    def settle(self) -> None:
        """Nothing is left behind; what Envoy keeps for a while is looked for at the end of all."""
        assert_nothing_left(self.sidecar, self.idle, kept=True)

    def nothing_active(self) -> bool:
        return self.sidecar.metric("counterfault_faults_active") == 0


# The listener of each protocol: what clients speak, then what the upstream speaks.
LISTENERS = {
    "curl-http1": "plain",
    "httpx-http1": "plain",
    "curl-h2c": "h2c",
    "httpx-http2": "tls",
    "httpx-http2-to-http1": "mixed",
}


def port_of(listener: Mapping[str, Any]) -> int:
    return int(listener["listen"].rpartition(":")[2])


def curl(url: str, headers: Mapping[str, str], ask: Ask, ca: Path, *options: str) -> Answer:
    """A transfer with curl; HTTP/1.1 unless the options say something else."""
    with tempfile.TemporaryDirectory() as directory:
        body, head, sent = (Path(directory) / name for name in ("body", "head", "sent"))
        sent.write_bytes(ask.body)
        said = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        upload = ["--data-binary", f"@{sent}", "-H", "expect:"] if ask.body else []
        command = [
            *(program("curl"), "-s", "--max-time", str(PATIENCE), "-X", ask.method, *upload),
            *("--noproxy", "*", "--cacert", str(ca), "-o", str(body), "-D", str(head), *said),
            *("-w", "%{http_code} %{time_total}", *(options or ("--http1.1",)), url),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        code, took = done.stdout.split()
        fields = [line.partition(":") for line in _lines(head)[1:] if ":" in line]
        return Answer(
            int(code) or None,
            {name.lower(): value.strip() for name, _, value in fields},
            body.read_bytes() if body.exists() else b"",
            done.returncode != 0,
            float(took),
        )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def curl_h2c(url: str, headers: Mapping[str, str], ask: Ask, ca: Path) -> Answer:
    return curl(url, headers, ask, ca, "--http2-prior-knowledge")


def with_httpx(*, http2: bool) -> Callable[..., Answer]:
    def client(url: str, headers: Mapping[str, str], ask: Ask, ca: Path) -> Answer:
        context = ssl.create_default_context(cafile=str(ca))
        start = time.monotonic()
        status, answered, body, broken = None, {}, b"", False
        with httpx.Client(
            http1=not http2, http2=http2, verify=context, timeout=PATIENCE, trust_env=False
        ) as session:
            try:
                with session.stream(
                    ask.method, url, headers=headers, content=ask.body or None
                ) as answer:
                    status, answered = answer.status_code, dict(answer.headers)
                    for part in answer.iter_raw():
                        body += part
            except httpx.TransportError:
                broken = True
            return Answer(status, answered, body, broken, time.monotonic() - start)

    return client


CLIENTS: dict[str, Callable[..., Answer]] = {
    "curl-http1": curl,
    "httpx-http1": with_httpx(http2=False),
    "curl-h2c": curl_h2c,
    "httpx-http2": with_httpx(http2=True),
    "httpx-http2-to-http1": with_httpx(http2=True),
}


@contextmanager
def conformance_world(
    directory: Path,
    engine: str,
    faults: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, bytes] = {},
) -> Iterator[World]:
    """A world in which each fault is on at each listener, for paths below its name."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "body").write_bytes(BODY)
    (directory / "json").write_bytes(JSON)
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(directory / "ours-ca.pem"))
    theirs.cert_pem.write_to_path(str(directory / "theirs-ca.pem"))
    for name, ca in (("listener", ours), ("upstream", theirs)):
        pem = ca.issue_cert("localhost").private_key_and_cert_chain_pem
        pem.write_to_path(str(directory / f"{name}.pem"))
    ports = {name: free_port() for name in ("TLS", "H2C")}
    conf = _NGINX.replace("DIR", str(directory))
    for name, port in ports.items():
        conf = conf.replace(f":{name} ", f":{port} ")
    with ExitStack() as stack:
        nginx = _nginx(directory / "nginx", conf)
        stack.callback(nginx.stop)
        served = {"cert": str(directory / "listener.pem"), "key": str(directory / "listener.pem")}
        upstreams: dict[str, dict[str, Any]] = {
            "plain": {"upstream": nginx.url},
            "h2c": {"upstream": f"http://127.0.0.1:{ports['H2C']}"},
            "tls": {
                "upstream": f"https://localhost:{ports['TLS']}",
                "ca": str(directory / "theirs-ca.pem"),
                "tls": served,
            },
            "mixed": {"upstream": nginx.url, "tls": served},
        }
        listeners = {n: {"listen": f"127.0.0.1:{free_port()}", **u} for n, u in upstreams.items()}
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        for name, content in files.items():
            (sidecar.directory / "experiments" / name).write_bytes(content)
        stack.callback(sidecar.stop)
        groups = _groups(list(faults), len(upstreams))
        sidecar.start()
        for number, group in enumerate(groups):
            share = f"{100 * _share(len(groups)):g}%"
            sidecar.experiment(
                f"x{number}",
                cohorts={"experiment": share, "control": share},
                faults=[
                    {**faults[name], "at": at, "match": {"prefix": f"/{name}/"}}
                    for name in sorted(group)
                    for at in upstreams
                ],
            )
        for number in range(len(groups)):
            until(partial(_running, sidecar, f"x{number}"))
        world = World(engine, sidecar, nginx, directory / "ours-ca.pem", groups)
        # What Envoy cannot do by itself needs the workers behind it.
        until(lambda: engine != "envoy" or len(sidecar.workers()) > 1, 60)
        until(sidecar.acts)
        for protocol in LISTENERS:  # whatever is made once is made now
            assert world.ask(protocol, "bystander", "/x/hello", Ask()).body == b"hello"
        world.idle = open_when_idle(sidecar)
        yield world
        assert_nothing_left(sidecar, world.idle)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def _running(sidecar: Sidecar, name: str) -> bool:
    return sidecar.state(name) == "running"


def _groups(names: list[str], listeners: int) -> list[frozenset[str]]:
    """As many as one experiment can have, 20 faults."""
    size = 20 // listeners
    return [frozenset(names[i : i + size]) for i in range(0, len(names), size)]


def _share(experiments: int) -> float:
    """Of each cohort, in hundredths; a few users are left over."""
    return min(30, 90 // (2 * experiments)) / 100


@cache
def arcs(experiments: int) -> tuple[Arcs, ...]:
    """In the order of their files' names."""
    share = _share(experiments)
    names = sorted(f"x{number}" for number in range(experiments))
    return tuple(Arcs(name, salt_of(name, 1), share, share) for name in names)


def _nginx(directory: Path, conf: str) -> Nginx:
    """Its own port is known only once it is made: asked for twice."""
    port = free_port()
    return Nginx(directory, conf.replace(":PLAIN/", f":{port}/") + f"listen 127.0.0.1:{port};")


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in its turn."""
    return str(request.param)


def primary_engine(engine: str) -> pytest.MarkDecorator:
    """`make test` runs the test on this engine, `make test-all` on each: they share its code."""
    # In the order of the fixture, by which tests that share something are brought together.
    params = [
        pytest.param(each, marks=pytest.mark.primary if each == engine else pytest.mark.twin)
        for each in sorted(ENGINES)
    ]
    return pytest.mark.parametrize("engine", params, indirect=True)
