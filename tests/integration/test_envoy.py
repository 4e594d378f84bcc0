"""The real Envoy behind the real supervisor: assignment, reload, lease, restarts."""

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from counterfault.proxy.engines.envoy.runtime.binary import find_envoy
from counterfault.proxy.experiments.cohorts import Arcs, salt_of
from tests.support import http_clients
from tests.support.http1_wire import connect, read_head
from tests.support.persistent_clients import Clients
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, until
from tests.support.shared_sidecar import HELLO, exclusive_use

ECHO = 'location / { add_header x-seen "$http_x_counterfault" always; return 200 "hello"; }'
ERROR = [{"at": "inbound", "error": 503}]
# What only workers can do.
REWRITE = [{"at": "inbound", "error": 503, "when": "after", "match": {"path": "/late"}}]
KEYS = 10_000


@pytest.fixture
def sidecar(plain_sidecars: Callable[[str], Sidecar]) -> Iterator[Sidecar]:
    with exclusive_use(plain_sidecars("envoy")) as sidecar:
        yield sidecar


def code(sidecar: Sidecar, who: str, path: str = "/") -> int:
    return http_clients.get(sidecar.url + path, headers={"x-user-id": who}, timeout=10).status_code


def units() -> Iterator[bytes]:
    """Ids as they come: numbers, unicode, raw bytes, of all lengths that the hash ends by."""
    chance = random.Random(6)
    allowed = bytes(b for b in range(0x21, 0x100) if b != 0x7F)
    for number in range(KEYS):
        match number % 4:
            case 0:
                yield b"user-%d" % number
            case 1:
                yield f"ü用🙂-{number}".encode()
            case 2:
                yield bytes(chance.choices(allowed, k=1 + number % 199))
            case _:
                yield b"x" * (number % 131) + b"%d" % number


def test_ten_thousand_users_are_where_python_puts_them(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx
) -> None:
    sidecar = make_sidecar(make_nginx(ECHO).url, engine="envoy", unit=[{"header": "x-user-id"}])
    sidecar.start()
    small = {"experiment": "10%", "control": "12%"}
    for name in ("a", "b"):  # in this order they are asked
        sidecar.running(name, cohorts=small, faults=[{**ERROR[0], "match": {"path": "/never"}}])
    arcs = [Arcs(name, salt_of(name, 1), 0.10, 0.12) for name in ("a", "b")]
    wrong, cohorts = [], set()
    with connect(sidecar.port) as sock:
        for unit in units():
            sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx-user-id: %s\r\n\r\n" % unit)
            head = read_head(sock)
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            enrolment = next((found for arc in arcs if (found := arc.enrolment_of(unit))), None)
            said = (
                f"{enrolment.experiment}.{enrolment.cohort}.{enrolment.replicate}"
                if enrolment
                else ""
            )
            cohorts.add(enrolment and (enrolment.experiment, enrolment.cohort))
            if f"x-seen: {said}\r\n".encode() not in head and (said or b"x-seen" in head):
                wrong.append((unit, said, head))
    assert wrong == []
    assert len(cohorts) == 5


def test_a_reload_is_active_when_it_answers_and_within_a_tenth_of_a_second(
    sidecar: Sidecar, name: str, user: Callable[..., str]
) -> None:
    who = user("experiment", name)
    sidecar.running(name, faults=ERROR)
    took = []
    for number in range(15):  # each is overtaken by the one that the change of the file brings
        status = 500 + number
        sidecar.experiment(name, faults=[{"at": "inbound", "error": status}], run=number + 2)
        start = time.monotonic()
        sidecar.post("/-/reload")
        took.append(time.monotonic() - start)
        assert code(sidecar, user("experiment", name, run=number + 2)) == status
    assert code(sidecar, who) in (200, *range(500, 515))
    assert statistics.median(took) < 0.1, took


def test_what_envoy_refuses_changes_nothing_and_is_told_with_its_reason(
    sidecar: Sidecar, name: str, user: Callable[..., str], tmp_path: Path
) -> None:
    """A certificate that is none is something only Envoy finds out."""
    sidecar.running(name, faults=ERROR)
    (sidecar.directory / "cert.pem").write_text("not a certificate")
    (sidecar.directory / "key.pem").write_text("not a key")
    tls = {"cert": "cert.pem", "key": "key.pem"}
    listener = {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:1", "tls": tls}
    sidecar.settings["listeners"]["other"] = listener
    sidecar.write_settings()
    until(lambda: "envoy refuses the configuration" in sidecar.log.read_text())
    assert "certificate" in sidecar.log.read_text()
    bystander = user("bystander")
    assert [code(sidecar, bystander) for _ in range(5)] == [200] * 5
    until(lambda: code(sidecar, user("experiment", name)) == 200)
    del sidecar.settings["listeners"]["other"]
    sidecar.write_settings()
    until(lambda: code(sidecar, user("experiment", name)) == 503)


def test_killed_it_is_back_within_a_second_and_counters_never_go_down(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, user: Callable[..., str]
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine="envoy").start()
    started = time.monotonic()
    sidecar.running(faults=ERROR)

    def counted(cohort: str) -> float:
        return sidecar.metric("counterfault_requests_total", cohort=cohort)

    for cohort in ("experiment", "control", "bystander"):
        for _ in range(5):
            code(sidecar, user(cohort))
    until(lambda: [counted(c) for c in ("experiment", "control", "bystander")] == [5, 5, 5])
    (pid,) = sidecar.workers()
    # One that is younger is taken for one in a crash loop.
    until(lambda: time.monotonic() - started > 2)
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    until(lambda: _answers(sidecar, user("bystander")))
    assert time.monotonic() - start < 1
    until(lambda: code(sidecar, user("experiment")) == 503)
    assert counted("bystander") >= 5
    until(lambda: counted("bystander") >= 6)
    assert counted("control") == 5
    assert counted("experiment") >= 5
    assert sidecar.workers() != [pid]


def _answers(sidecar: Sidecar, who: str) -> bool:
    try:
        return code(sidecar, who) == 200
    except httpx.TransportError:
        return False


def test_a_limit_that_needs_another_process_gets_one_without_a_failed_request(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, user: Callable[..., str]
) -> None:
    limits = {"enrolled": "100%", "drain": "1s"}
    sidecar = make_sidecar(make_nginx(HELLO).url, engine="envoy", limits=limits).start()
    (before,) = sidecar.workers()
    with Clients(sidecar.url, "close", user("bystander")) as clients:
        until(lambda: clients.count > 20)
        sidecar.settings["limits"] = {**limits, "connections": 1234}
        sidecar.write_settings()
        until(lambda: sidecar.workers() not in ([before], []) and sidecar.acts())
        count = clients.count
        until(lambda: clients.count > count + 20)
    assert clients.wrong == []
    until(lambda: not Path(f"/proc/{before}/fd").exists())


METRIC = {"name": "good", "at": "inbound", "success_rate": {"drop": "1pp"}}


def detouring(sidecar: Sidecar, name: str) -> list[int]:
    """Start an experiment that Envoy cannot do alone; the workers behind it."""
    sidecar.running(name, faults=REWRITE, steady_state=[METRIC])
    until(lambda: len(sidecar.workers()) == 2 and sidecar.acts(), 60)
    return sidecar.workers()[1:]


def test_an_experiment_that_envoy_cannot_do_takes_a_detour_and_others_do_not(
    sidecar: Sidecar, name: str, user: Callable[..., str]
) -> None:
    detouring(sidecar, name)
    until(lambda: code(sidecar, user("experiment", name), "/late") == 503)
    assert code(sidecar, user("control", name), "/late") == 200
    assert code(sidecar, user("bystander", name), "/late") == 200
    events = "counterfault_steady_state_events_total"
    until(lambda: sidecar.metric(events, experiment=name, cohort="experiment", outcome="bad") == 1)
    until(lambda: sidecar.metric(events, experiment=name, cohort="control", outcome="good") == 1)
    performed = {"experiment": name, "result": "performed"}
    until(lambda: sidecar.metric("counterfault_faults_total", **performed) == 1)
    requests = "counterfault_requests_total"
    assert sidecar.metric(requests, experiment=name, cohort="experiment", code="5xx") == 1
    assert sidecar.metric(requests, experiment=name, cohort="control") == 1


def test_while_the_workers_are_gone_their_experiments_enrol_nobody(
    sidecar: Sidecar, name: str, user: Callable[..., str]
) -> None:
    workers = detouring(sidecar, name)
    until(lambda: code(sidecar, user("experiment", name), "/late") == 503)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: sidecar.workers()[1:] != workers)
    assert [code(sidecar, user("control", name)) for _ in range(5)] == [200] * 5
    until(lambda: len(sidecar.workers()) == 2 and sidecar.workers()[1:] != workers, 60)
    until(lambda: code(sidecar, user("experiment", name), "/late") == 503)


def test_of_a_killed_worker_behind_only_the_enrolled_may_notice(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, user: Callable[..., str]
) -> None:
    """Each of them has one request under way at most."""
    sidecar = make_sidecar(make_nginx(HELLO).url, engine="envoy", workers=2).start()
    sidecar.running(faults=REWRITE)
    until(lambda: len(sidecar.workers()) == 3 and sidecar.acts(), 60)
    envoy, killed, other = sidecar.workers()
    with ExitStack() as stack:
        clients = {
            cohort: [
                stack.enter_context(Clients(sidecar.url, connection, user(cohort)))
                for connection in ("keep-alive", "close")
            ]
            for cohort in ("experiment", "control", "bystander")
        }
        everybody = [c for each in clients.values() for c in each]
        until(lambda: min(c.count for c in everybody) > 20)
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(sidecar.workers()) == 3 and killed not in sidecar.workers())
        before = [c.count for c in everybody]
        until(lambda: all(c.count > b + 20 for c, b in zip(everybody, before, strict=True)))
    assert {envoy, other} < {*sidecar.workers()}
    assert [c.wrong for c in clients["bystander"]] == [[], []]
    assert all(len(c.wrong) <= 1 for c in everybody)


def test_units_come_from_cookies_and_baggage_too(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, user: Callable[..., str]
) -> None:
    sources = [{"baggage": "counterfault.unit"}, {"cookie": "session"}, {"header": "x-user-id"}]
    sidecar = make_sidecar(make_nginx(HELLO).url, engine="envoy", unit=sources).start()
    sidecar.running(faults=ERROR)
    hit, spared = user("experiment"), user("control")
    for name, value in (
        ("baggage", f"a=1, counterfault.unit = {hit} ;p=q,b=2"),
        ("cookie", f"other=1; session={hit}; session={spared}"),
        ("x-user-id", hit),
    ):
        found = http_clients.get(sidecar.url, headers={name: value, "host": "a"})
        assert found.status_code == 503, name
    both = [("x-user-id", spared), ("cookie", f"session={hit}")]
    assert http_clients.get(sidecar.url, headers=both).status_code == 503
    twice = [("x-user-id", hit), ("x-user-id", spared)]
    assert http_clients.get(sidecar.url, headers=twice).status_code == 503


def test_the_configuration_is_valid_to_the_real_envoy(sidecar: Sidecar, name: str) -> None:
    sidecar.running(name, faults=[*ERROR, *REWRITE], steady_state=[METRIC])
    directory = sidecar.directory / "state" / "envoy"
    command = [
        find_envoy(None, directory),
        "--mode",
        "validate",
        "-c",
        "bootstrap.json",
        "--base-id",
        "4242",
    ]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert oct((directory / "config").stat().st_mode)[-3:] == "700"
    bootstrap = json.loads((directory / "bootstrap.json").read_text())
    assert bootstrap["admin"]["address"]["pipe"] == {"path": "admin.sock", "mode": 0o600}
