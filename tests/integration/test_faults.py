"""Faults as real clients see them, and their absence for everybody else."""

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import http_clients
from tests.support.cases import each
from tests.support.programs import Nginx, Sidecar

FAULTS: dict[str, dict[str, Any]] = {
    "fixed": {"latency": "800ms"},
    "jitter": {"latency": {"mean": "800ms", "jitter": "100ms"}},
    "percentiles": {"latency": {"p50": "800ms", "p99": "900ms"}},
    "lognormal": {"latency": {"lognormal": {"median": "800ms", "sigma": 0.05}}},
    "error": {"error": {"status": 503, "body": "injected", "headers": {"retry-after": "7"}}},
    "bare": {"error": 418},
    "close": {"drop": "close"},
    "reset": {"drop": "reset"},
    "hang": {"drop": {"mode": "hang", "hang": "1s"}},
    "late": {"latency": "800ms", "when": "after"},
    "late-error": {"error": {"status": 500, "body": "lost"}, "when": "after"},
    "late-close": {"drop": "close", "when": "after"},
    "late-reset": {"drop": "reset", "when": "after"},
    "late-hang": {"drop": {"mode": "hang", "hang": "1s"}, "when": "after"},
    "unsafe": {"error": 500, "when": "after", "unsafe": True, "match": {"method": "POST"}},
    "posted": {"error": 500, "match": {"method": ["POST", "PUT"]}},
    "half": {"error": 500, "dose": "50%"},
    "header": {"error": 500, "match": {"headers": {"x-beta": "yes"}}},
}
SMALL = {"experiment": "10%", "control": "10%"}
type Aside = tuple[Sidecar, str]
NGINX = """
    location /big { alias BIG; }
    location / { return 200 "hello"; }
"""


def rules() -> list[dict[str, Any]]:
    """One rule per path; a rule's own match is kept beside its path."""
    made = [
        {"at": "inbound", **fault, "match": {"path": f"/{name}", **fault.get("match", {})}}
        for name, fault in FAULTS.items()
    ]
    big = {"at": "inbound", "error": 500, "when": "after", "match": {"path": "/big"}}
    return [*made, big]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[tuple[Sidecar, Nginx]]:
    directory = tmp_path_factory.mktemp("faults")
    big = directory / "big"
    big.write_bytes(b"x" * (8 << 20))
    nginx = Nginx(directory / "nginx", NGINX.replace("BIG", str(big)))
    sidecar = Sidecar(directory / "sidecar", nginx.url, {"engine": engine}).start()
    sidecar.running(faults=rules())
    yield sidecar, nginx
    sidecar.stop()
    nginx.stop()


@pytest.fixture
def sidecar(world: tuple[Sidecar, Nginx]) -> Sidecar:
    return world[0]


@pytest.fixture
def nginx(world: tuple[Sidecar, Nginx]) -> Nginx:
    return world[1]


@pytest.fixture
def aside(sidecar: Sidecar, name: str) -> Iterator[Aside]:
    """The sidecar, and the name of an experiment that comes before the one that all others use."""
    first = f"a{name}"
    yield sidecar, first
    (sidecar.directory / "experiments" / f"{first}.yaml").unlink()
    sidecar.post("/-/reload")  # its users are the other one's again


@pytest.fixture
def hit(user: Callable[..., str]) -> dict[str, str]:
    return {"x-user-id": user("experiment")}


@pytest.fixture
def spared(user: Callable[..., str]) -> dict[str, str]:
    return {"x-user-id": user("control")}


def timed(method: str, url: str, **asked: Any) -> tuple[float, httpx.Response]:
    start = time.monotonic()
    answer = http_clients.request(method, url, **asked)
    return time.monotonic() - start, answer


def seen(nginx: Nginx, path: str) -> int:
    """How many requests for a path have reached the upstream."""
    return nginx.access.read_text().count(f" {path} ")


@each("name", sorted(FAULTS))
@each("cohort", ["control", "bystander"])
def test_others_are_never_faulted(
    sidecar: Sidecar, name: str, cohort: str, user: Callable[..., str]
) -> None:
    headers = {"x-user-id": user(cohort), "x-beta": "yes"}
    took = []
    for method in ("GET", "POST"):
        seconds, answer = timed(method, f"{sidecar.url}/{name}", headers=headers)
        assert (answer.status_code, answer.text) == (200, "hello")
        took.append(seconds)
    assert min(took) < 0.6  # a fault would delay both; a busy machine delays one


@each(
    ("name", "least", "most"),
    [
        ("fixed", 0.8, 0.8),
        ("jitter", 0.7, 0.9),
        ("percentiles", 0.65, 1.0),
        ("lognormal", 0.65, 1.0),
        ("late", 0.8, 0.8),
    ],
)
def test_latency_delays_the_whole_answer(
    sidecar: Sidecar, hit: dict[str, str], name: str, least: float, most: float
) -> None:
    took, answer = timed("GET", f"{sidecar.url}/{name}", headers=hit)
    assert (answer.status_code, answer.text) == (200, "hello")
    assert least <= took < most + 3  # a busy machine's part in it


def test_an_error_answers_instead_of_the_upstream(
    sidecar: Sidecar, nginx: Nginx, hit: dict[str, str]
) -> None:
    before = seen(nginx, "/error")
    answer = http_clients.get(f"{sidecar.url}/error", headers=hit)
    assert (answer.status_code, answer.text) == (503, "injected")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert seen(nginx, "/error") == before


def test_an_error_leaves_the_connection_usable(sidecar: Sidecar, hit: dict[str, str]) -> None:
    with http_clients.Client(headers=hit) as client:
        codes = [client.get(f"{sidecar.url}/{p}").status_code for p in ("bare", "", "bare", "")]
    assert codes == [418, 200, 418, 200]


def test_an_error_does_not_wait_for_a_large_upload_to_be_kept(
    sidecar: Sidecar, hit: dict[str, str]
) -> None:
    before = resident(sidecar)
    answer = http_clients.post(f"{sidecar.url}/posted", headers=hit, content=b"x" * (40 << 20))
    assert answer.status_code == 500
    assert resident(sidecar) - before < 20 << 20


def resident(sidecar: Sidecar) -> int:
    """Memory of the first worker in bytes."""
    status = Path(f"/proc/{sidecar.workers()[0]}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def raw(sidecar: Sidecar, path: str, who: dict[str, str]) -> tuple[bytes, str, float]:
    """What comes back on a plain socket, how it ends, and after how many seconds."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", sidecar.port), 5) as sock:
        sock.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: a\r\nX-User-Id: {who['x-user-id']}\r\n\r\n".encode()
        )
        try:
            data, end = sock.recv(65536), "fin"
        except ConnectionResetError:
            data, end = b"", "rst"
    return data, end, time.monotonic() - start


@each(
    ("name", "end", "after"),
    [
        ("close", "fin", 0.0),
        ("reset", "rst", 0.0),
        ("hang", "fin", 1.0),
        ("late-close", "fin", 0.0),
        ("late-reset", "rst", 0.0),
        ("late-hang", "fin", 1.0),
    ],
)
def test_a_drop_ends_the_connection_as_it_says(
    sidecar: Sidecar, hit: dict[str, str], engine: str, name: str, end: str, after: float
) -> None:
    if engine == "envoy":  # which closes an HTTP/1 connection instead
        end = "fin"
    data, ended, took = raw(sidecar, name, hit)
    assert (data, ended) == (b"", end)
    assert after <= took < after + 0.7


@each("name", ["late", "late-error", "late-close", "late-reset"])
def test_after_means_that_the_upstream_has_done_the_work(
    sidecar: Sidecar, nginx: Nginx, hit: dict[str, str], name: str, until: Callable[..., Any]
) -> None:
    before = seen(nginx, f"/{name}")
    raw(sidecar, name, hit)
    until(lambda: seen(nginx, f"/{name}") == before + 1)


@each("name", ["error", "close", "reset", "hang"])
def test_before_means_that_the_upstream_hears_nothing(
    sidecar: Sidecar, nginx: Nginx, hit: dict[str, str], name: str
) -> None:
    before = seen(nginx, f"/{name}")
    raw(sidecar, name, hit)
    http_clients.get(f"{sidecar.url}/marker")
    assert seen(nginx, f"/{name}") == before


def test_after_spares_methods_that_are_not_idempotent_unless_it_is_unsafe(
    sidecar: Sidecar, hit: dict[str, str]
) -> None:
    assert http_clients.post(f"{sidecar.url}/late-error", headers=hit).status_code == 200
    assert http_clients.get(f"{sidecar.url}/late-error", headers=hit).status_code == 500
    assert http_clients.post(f"{sidecar.url}/unsafe", headers=hit).status_code == 500


def test_a_late_error_replaces_a_large_answer_on_a_connection_that_lives_on(
    sidecar: Sidecar, hit: dict[str, str]
) -> None:
    with http_clients.Client(headers=hit) as client:
        for _ in range(3):
            answer = client.get(f"{sidecar.url}/big")
            assert (answer.status_code, answer.content) == (500, b"")
            assert client.get(f"{sidecar.url}/").text == "hello"


def test_the_dose_is_the_share_of_requests(sidecar: Sidecar, hit: dict[str, str]) -> None:
    with http_clients.Client(headers=hit) as client:
        codes = [client.get(f"{sidecar.url}/half").status_code for _ in range(400)]
    # Four standard errors of a binomial share of one half.
    assert abs(codes.count(500) / 400 - 0.5) < 4 * 0.025


def test_a_fault_matches_headers(sidecar: Sidecar, hit: dict[str, str]) -> None:
    assert http_clients.get(f"{sidecar.url}/header", headers=hit).status_code == 200
    assert (
        http_clients.get(f"{sidecar.url}/header", headers=hit | {"x-beta": "yes"}).status_code
        == 500
    )


def test_the_cohorts_take_turns_on_one_connection(
    sidecar: Sidecar, hit: dict[str, str], spared: dict[str, str]
) -> None:
    with http_clients.Client() as client:
        codes = [
            client.get(f"{sidecar.url}/bare", headers=who).status_code for who in [hit, spared] * 3
        ]
    assert codes == [418, 200] * 3


def test_a_client_that_leaves_a_hang_ends_it(
    sidecar: Sidecar, hit: dict[str, str], until: Callable[..., Any]
) -> None:
    sock = socket.create_connection(("127.0.0.1", sidecar.port))
    sock.sendall(f"GET /hang HTTP/1.1\r\nHost: a\r\nX-User-Id: {hit['x-user-id']}\r\n\r\n".encode())
    until(lambda: sidecar.metric("counterfault_faults_active") == 1)
    start = time.monotonic()
    sock.close()
    until(lambda: sidecar.metric("counterfault_faults_active") == 0)
    assert time.monotonic() - start < 0.9


def test_everything_is_counted_as_the_client_saw_it(
    aside: Aside, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    sidecar, name = aside
    sidecar.running(name, faults=rules(), cohorts=SMALL)
    hit, spared = (
        {"x-user-id": user(cohort, name, share=0.1)} for cohort in ("experiment", "control")
    )
    for path in ("error", "bare", "close", "reset", "late-error", "unmatched"):
        raw(sidecar, path, hit)
        raw(sidecar, path, spared)

    def metric(what: str, **labels: str) -> float:
        return sidecar.metric(f"counterfault_{what}_total", experiment=name, **labels)

    def counted(cohort: str) -> dict[str, float]:
        codes = ("1xx", "2xx", "3xx", "4xx", "5xx", "error")
        found = {c: metric("requests", cohort=cohort, code=c) for c in codes}
        return {code: count for code, count in found.items() if count}

    until(lambda: sum(counted("control").values()) == 6)
    until(lambda: sum(counted("experiment").values()) == 6)
    assert counted("control") == {"2xx": 6}
    assert counted("experiment") == {"2xx": 1, "4xx": 1, "5xx": 2, "error": 2}
    performed = {
        kind: metric("faults", fault=kind, result="performed")
        for kind in ("error", "drop", "latency")
    }
    assert performed == {"error": 3, "drop": 2, "latency": 0}


def test_no_more_faults_are_active_than_allowed(
    make_sidecar: Callable[..., Sidecar],
    nginx: Nginx,
    user: Callable[..., str],
    engine: str,
    until: Callable[..., Any],
) -> None:
    limits = {"enrolled": "100%", "active_faults": 3}
    limited = make_sidecar(nginx.url, engine=engine, workers=2, limits=limits).start()
    limited.running(faults=[{"at": "inbound", "latency": "2s"}])
    who = user("experiment")
    curls = [
        subprocess.Popen(
            [
                *("curl", "-s", "-o", "/dev/null", "-w", "%{time_total}"),
                *("-H", f"x-user-id: {who}", f"{limited.url}/"),
            ],
            stdout=subprocess.PIPE,
        )
        for _ in range(10)
    ]
    took = [float(c.communicate(timeout=20)[0]) for c in curls]
    # Envoy counts from when its loop last woke, so that on a busy machine 1.998 s were seen.
    held = sum(t >= (1.95 if engine == "envoy" else 2) for t in took)
    # Each of Envoy's threads but one keeps one back, lest all of them take the last one at once.
    assert held in ((2, 3) if engine == "envoy" else (3,))
    overflow = {"experiment": "x", "result": "overflow"}
    until(lambda: limited.metric("counterfault_faults_total", **overflow) == 10 - held)


def test_max_faults_ends_the_run(
    aside: Aside, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    sidecar, name = aside
    error = [{"at": "inbound", "error": 503}]
    sidecar.running(name, faults=error, guard={"max_faults": 4}, cohorts=SMALL)
    with http_clients.Client(headers={"x-user-id": user("experiment", name, share=0.1)}) as client:
        codes = [client.get(sidecar.url).status_code for _ in range(10)]
    assert codes == [503] * 4 + [200] * 6
    until(lambda: sidecar.state(name) == "stopped")


def test_resets_are_real(sidecar: Sidecar, hit: dict[str, str], engine: str) -> None:
    """SO_ERROR tells an RST from a FIN even for a client that only polls; not on Envoy."""
    with socket.create_connection(("127.0.0.1", sidecar.port), 5) as sock:
        sock.sendall(
            f"GET /reset HTTP/1.1\r\nHost: a\r\nX-User-Id: {hit['x-user-id']}\r\n\r\n".encode()
        )
        if engine == "envoy":
            assert sock.recv(1) == b""
            return
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        assert struct.unpack("B", info)[0] == 7  # TCP_CLOSE
