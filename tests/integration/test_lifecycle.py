"""Stops, restarts, lost leases and drains, on real processes."""

import os
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support import http_clients
from tests.support.conformance import primary_engine
from tests.support.persistent_clients import Clients
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, alive, until
from tests.support.shared_sidecar import HELLO, exclusive_use

LEASE = 1.0
SMALL = {"experiment": "10%", "control": "10%"}
ERROR = [{"at": "inbound", "error": 503}]
SLOW = 'location /slow { limit_rate 2000; alias BODY; } location / { return 200 "hello"; }'


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str) -> Sidecar:
    return make_sidecar(make_nginx(HELLO).url, engine=engine).start()


@pytest.fixture
def shared(plain_sidecars: Callable[[str], Sidecar], engine: str) -> Iterator[Sidecar]:
    """One for all tests that leave its supervisor alone."""
    with exclusive_use(plain_sidecars(engine)) as sidecar:
        yield sidecar


def code(sidecar: Sidecar, who: str) -> int:
    return http_clients.get(sidecar.url, headers={"x-user-id": who}).status_code


def test_an_operators_stop_is_done_when_it_answers(
    shared: Sidecar, user: Callable[..., str]
) -> None:
    took = []
    for run in (1, 2, 3):
        shared.running("stopping", run=run, faults=ERROR, cohorts=SMALL)
        who = user("experiment", "stopping", run=run, share=0.1)
        assert code(shared, who) == 503
        start = time.monotonic()
        shared.post("/api/experiments/stopping/stop")
        took.append(time.monotonic() - start)
        assert code(shared, who) == 200
        assert shared.state("stopping") == "stopped"
    # The quickest of them: the machine has other things to do too.
    assert min(took) < 0.25


def test_a_stop_lets_go_of_what_is_held(shared: Sidecar, user: Callable[..., str]) -> None:
    took = []
    for run in (1, 2, 3):
        hang = [{"at": "inbound", "drop": "hang"}]
        shared.running("holding", run=run, faults=hang, cohorts=SMALL)
        who, answers = user("experiment", "holding", run=run, share=0.1), list[tuple[int, float]]()
        waiting = threading.Thread(
            target=lambda who, answers: answers.append((code(shared, who), time.monotonic())),
            args=(who, answers),
        )
        waiting.start()
        until(lambda: shared.metric("counterfault_faults_active") == 1)
        start = time.monotonic()
        shared.post("/api/experiments/holding/stop")
        waiting.join()
        ((answered, at),) = answers
        assert answered == 200
        took.append(at - start)
    assert min(took) < 0.25


@primary_engine("mitmproxy")
def test_the_kill_switch_stops_everything_and_survives_a_restart(
    sidecar: Sidecar, user: Callable[..., str]
) -> None:
    sidecar.running("x", faults=ERROR, cohorts=SMALL)
    sidecar.running("y", faults=ERROR, cohorts=SMALL)
    sidecar.post("/api/stop")
    assert (sidecar.state("x"), sidecar.state("y")) == ("stopped", "stopped")
    sidecar.stop()
    sidecar.experiment("z", faults=ERROR, cohorts=SMALL)
    sidecar.start()
    assert sidecar.state("z") == "stopped"
    sidecar.post("/api/resume")
    sidecar.running("z", run=2, faults=ERROR, cohorts=SMALL)
    assert code(sidecar, user("experiment", "z", run=2, share=0.1)) == 503


def test_an_unknown_experiment_cannot_be_stopped(shared: Sidecar) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        shared.post("/api/experiments/nothing/stop")


@primary_engine("envoy")
def test_a_restarted_supervisor_resumes_no_run(sidecar: Sidecar, user: Callable[..., str]) -> None:
    sidecar.running(faults=ERROR)
    for run, number in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
        assert code(sidecar, user("experiment", run=run)) == 503
        sidecar.stop(number)
        sidecar.start()
        assert sidecar.state() == "stopped"
        assert code(sidecar, user("experiment", run=run)) == 200
        sidecar.running(run=run + 1, faults=ERROR)
    assert code(sidecar, user("experiment", run=3)) == 503


def faulted_until(sidecar: Sidecar, who: str) -> float:
    """When the last request was sent that got the fault; then there are twenty without."""
    last, passed = 0.0, 0
    while passed < 20:
        sent = time.monotonic()
        if code(sidecar, who) == 503:
            last, passed = sent, 0
        else:
            passed += 1
    return last


def test_without_a_supervisor_faults_end_with_the_lease_and_traffic_goes_on(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, user: Callable[..., str]
) -> None:
    """One that stands still finds its run stopped; of one that is dead the workers live on."""
    limits = {"enrolled": "100%", "lease": f"{LEASE:g}s"}
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, limits=limits).start()
    for run, number in ((1, signal.SIGSTOP), (2, signal.SIGKILL)):
        sidecar.running(run=run, faults=ERROR)
        workers, who = sidecar.workers(), user("experiment", run=run)
        assert code(sidecar, who) == 503
        assert sidecar.process is not None
        sidecar.process.send_signal(number)
        gone = time.monotonic()
        assert faulted_until(sidecar, who) < gone + LEASE
        if number == signal.SIGSTOP:
            sidecar.process.send_signal(signal.SIGCONT)
            until(lambda: sidecar.state() == "stopped")
            (seen,) = sidecar.get("/api/experiments")["experiments"]
            assert "lease" in seen["reason"]
            assert code(sidecar, who) == 200
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert sidecar.process is not None
    sidecar.process.wait()
    sidecar.process = None


def test_a_killed_worker_is_replaced_and_counters_do_not_go_down(shared: Sidecar) -> None:
    def counted() -> float:
        return shared.metric("counterfault_requests_total", cohort="bystander")

    def answers() -> bool:
        try:
            return http_clients.get(shared.url, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    before = counted()
    for _ in range(5):
        assert answers()
    until(lambda: counted() == before + 5)
    (pid,) = shared.workers()
    os.kill(pid, signal.SIGKILL)
    until(answers)
    until(lambda: counted() >= before + 6)
    until(lambda: shared.workers() and shared.workers() != [pid])


@primary_engine("envoy")
def test_sigterm_finishes_what_is_under_way_and_refuses_what_is_new(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    tmp_path: Any,
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 4000)
    nginx = make_nginx(SLOW.replace("BODY", str(body)))
    sidecar = make_sidecar(nginx.url, engine=engine).start()
    answers: list[tuple[int, int]] = []
    begun = threading.Event()

    def read_slowly(url: str) -> tuple[int, int]:
        with http_clients.stream("GET", url) as answer:
            begun.set()
            return answer.status_code, sum(len(chunk) for chunk in answer.iter_raw())

    slow = threading.Thread(target=lambda: answers.append(read_slowly(f"{sidecar.url}/slow")))
    with http_clients.Client() as idle:
        idle.get(sidecar.url)
        slow.start()
        assert begun.wait(10)
        assert sidecar.process is not None
        sidecar.process.send_signal(signal.SIGTERM)
        until(lambda: refused(sidecar.port))
        slow.join()
    assert sidecar.process.wait(20) == 0
    sidecar.process = None
    assert answers == [(200, 4000)]


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_of_somebody_else_is_refused_at_start(
    make_sidecar: MakeSidecar, engine: str, shares: bool
) -> None:
    """Though the other would share it, as our workers do."""
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        sidecar = make_sidecar(
            "http://127.0.0.1:1", engine=engine, inbound={"listen": f"127.0.0.1:{port}"}
        )
        sidecar.start(ready=False)
        assert sidecar.process is not None
        assert sidecar.process.wait(30) == 2
        sidecar.process = None
    told = sidecar.log.read_text()
    assert f"listener inbound: 127.0.0.1:{port}: Address already in use" in told


@primary_engine("mitmproxy")
def test_an_unusable_state_directory_starts_nothing_and_traffic_passes(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, user: Callable[..., str]
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine)
    (sidecar.directory / "state").write_text("in the way")
    sidecar.experiment(faults=ERROR)
    sidecar.start()
    assert sidecar.state() == "pending"
    assert code(sidecar, user("experiment")) == 200
    readyz = http_clients.get(f"{sidecar.admin}/readyz")
    assert "state" in readyz.text
    assert "no run starts" in readyz.text


def served_more(*clients: Clients) -> None:
    """Wait until each of them has had fifty more answers."""
    wanted = [client.count + 50 for client in clients]
    until(lambda: all(c.count > most for c, most in zip(clients, wanted, strict=True)))


@pytest.mark.slow
def test_a_new_supervisor_takes_over_without_a_failed_request(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """After a crash, from one that is stalled, and from one that is well; the same workers each."""
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    workers = sidecar.workers()
    for number in (signal.SIGKILL, signal.SIGSTOP, None):
        old = sidecar.process
        assert old is not None
        with Clients(sidecar.url, "keep-alive") as one, Clients(sidecar.url, "close") as other:
            served_more(one, other)
            if number is not None:
                old.send_signal(number)
            if number == signal.SIGKILL:
                old.wait()
            sidecar.start()
            until(lambda: sorted(sidecar.workers()) == sorted(workers))
            served_more(one, other)
        assert old.wait(10) == (0 if number is None else -signal.SIGKILL)
        assert (one.wrong, other.wrong) == ([], [])


@pytest.mark.slow
def test_a_supervisor_in_a_crash_loop_costs_no_request(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine).start()
    workers = sidecar.workers()
    with Clients(sidecar.url, "keep-alive") as one, Clients(sidecar.url, "close") as other:
        for _ in range(3):
            assert sidecar.process is not None
            sidecar.process.kill()
            sidecar.process.wait()
            sidecar.start()
        assert sidecar.workers() == workers
        until(lambda: min(one.count, other.count) > 100)
    assert (one.wrong, other.wrong) == ([], [])


@primary_engine("mitmproxy")
def test_orphans_leave_after_their_bound(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """Not Envoy, which nobody can tell to."""
    limits = {"enrolled": "100%", "orphans": "1s"}
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, limits=limits).start()
    (pid,) = sidecar.workers()
    assert sidecar.process is not None
    sidecar.process.kill()
    sidecar.process.wait()
    sidecar.process = None
    assert http_clients.get(sidecar.url).status_code == 200
    if engine == "envoy":
        time.sleep(2)
        assert http_clients.get(sidecar.url).status_code == 200
        os.kill(pid, signal.SIGKILL)
    until(lambda: refused(sidecar.port))
    until(lambda: not alive(pid))


@primary_engine("envoy")
def test_it_is_ready_once_its_raw_connections_are_served(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    """By workers, on Envoy too, which has nothing to do here."""
    url = make_nginx(HELLO).url.replace("http", "tcp")
    sidecar = make_sidecar(url, engine=engine, workers=2).start()
    assert len(sidecar.workers()) == 2 + (engine == "envoy")
    start = time.monotonic()
    assert http_clients.get(sidecar.url).text == "hello"
    assert time.monotonic() - start < 0.5


def test_sigterm_while_it_starts_ends_it_at_once(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine).start(ready=False)
    process = sidecar.process
    assert process is not None
    until(lambda: not refused(sidecar.admin_port))
    process.terminate()
    assert process.wait(15) == 0
    sidecar.process = None
    assert refused(sidecar.port)
