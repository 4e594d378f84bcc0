"""Stops, restarts, lost leases and drains, on real processes."""

import os
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clients import Clients
from programs import MakeNginx, MakeSidecar, Sidecar, alive

ERROR = [{"at": "inbound", "error": 503}]
HELLO = 'location / { return 200 "hello"; }'
SLOW = 'location /slow { limit_rate 2000; alias BODY; } location / { return 200 "hello"; }'


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str) -> Sidecar:
    return make_sidecar(make_nginx(HELLO).url, engine=engine).start()


def code(sidecar: Sidecar, who: str) -> int:
    return httpx.get(sidecar.url, headers={"x-user-id": who}).status_code


def test_an_operators_stop_is_done_when_it_answers(
    sidecar: Sidecar, user: Callable[..., str]
) -> None:
    sidecar.running(faults=ERROR)
    assert code(sidecar, user("experiment")) == 503
    start = time.monotonic()
    sidecar.post("/api/experiments/x/stop")
    assert time.monotonic() - start < 0.25
    assert code(sidecar, user("experiment")) == 200
    assert sidecar.state() == "stopped"


def test_a_stop_lets_go_of_what_is_held(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    sidecar.running(faults=[{"at": "inbound", "drop": "hang"}])
    answers: list[tuple[int, float]] = []

    def wait() -> None:
        found = code(sidecar, user("experiment"))
        answers.append((found, time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: sidecar.metric("counterfault_faults_active") == 1)
    start = time.monotonic()
    sidecar.post("/api/experiments/x/stop")
    waiting.join()
    assert answers[0][0] == 200
    assert answers[0][1] - start < 0.25


def test_the_kill_switch_stops_everything_and_survives_a_restart(
    sidecar: Sidecar, user: Callable[..., str]
) -> None:
    small = {"experiment": "10%", "control": "10%"}
    sidecar.running("x", faults=ERROR, cohorts=small)
    sidecar.running("y", faults=ERROR, cohorts=small)
    sidecar.post("/api/stop")
    assert (sidecar.state("x"), sidecar.state("y")) == ("stopped", "stopped")
    sidecar.stop()
    sidecar.experiment("z", faults=ERROR, cohorts=small)
    sidecar.start()
    assert sidecar.state("z") == "stopped"
    sidecar.post("/api/resume")
    sidecar.running("z", run=2, faults=ERROR, cohorts=small)
    assert code(sidecar, user("experiment", "z", run=2, share=0.1)) == 503


def test_an_unknown_experiment_cannot_be_stopped(sidecar: Sidecar) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        sidecar.post("/api/experiments/nothing/stop")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_supervisor_resumes_no_run(
    sidecar: Sidecar, user: Callable[..., str], number: int
) -> None:
    sidecar.running(faults=ERROR)
    sidecar.stop(number)
    sidecar.start()
    assert sidecar.state() == "stopped"
    assert code(sidecar, user("experiment")) == 200
    sidecar.running(run=2, faults=ERROR)
    assert code(sidecar, user("experiment", run=2)) == 503


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_a_supervisor_faults_end_with_the_lease_and_traffic_goes_on(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    user: Callable[..., str],
    until: Callable[..., Any],
    number: int,
) -> None:
    lease = 1.0
    sidecar = make_sidecar(
        make_nginx(HELLO).url, engine=engine, limits={"enrolled": "100%", "lease": f"{lease:g}s"}
    ).start()
    sidecar.running(faults=ERROR)
    assert sidecar.process is not None
    workers = sidecar.workers()
    sidecar.process.send_signal(number)
    gone = time.monotonic()
    who = user("experiment")
    assert code(sidecar, who) == 503
    until(lambda: code(sidecar, who) == 200)
    assert time.monotonic() - gone < lease + 0.2
    assert [code(sidecar, who) for _ in range(20)] == [200] * 20
    if number == signal.SIGSTOP:
        sidecar.process.send_signal(signal.SIGCONT)
        until(lambda: sidecar.state() == "stopped")
        (seen,) = sidecar.get("/api/experiments")["experiments"]
        assert "lease" in seen["reason"]
        assert code(sidecar, who) == 200
    else:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        sidecar.process.wait()
        sidecar.process = None


def test_a_killed_worker_is_replaced_and_counters_do_not_go_down(
    sidecar: Sidecar, until: Callable[..., Any]
) -> None:
    def counted() -> float:
        return sidecar.metric("counterfault_requests_total", cohort="bystander")

    def answers() -> bool:
        try:
            return httpx.get(sidecar.url, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    for _ in range(5):
        assert answers()
    until(lambda: counted() == 5)
    (pid,) = sidecar.workers()
    os.kill(pid, signal.SIGKILL)
    until(answers)
    until(lambda: counted() >= 6)
    assert sidecar.workers() != [pid]


def test_sigterm_finishes_what_is_under_way_and_refuses_what_is_new(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    tmp_path: Any,
    until: Callable[..., Any],
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 4000)
    nginx = make_nginx(SLOW.replace("BODY", str(body)))
    sidecar = make_sidecar(nginx.url, engine=engine).start()
    answers: list[tuple[int, int]] = []
    begun = threading.Event()

    def read_slowly(url: str) -> tuple[int, int]:
        with httpx.stream("GET", url) as answer:
            begun.set()
            return answer.status_code, sum(len(chunk) for chunk in answer.iter_raw())

    slow = threading.Thread(target=lambda: answers.append(read_slowly(f"{sidecar.url}/slow")))
    with httpx.Client() as idle:
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


def test_a_port_of_somebody_else_is_refused_at_start(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str
) -> None:
    nginx = make_nginx(HELLO)
    sidecar = make_sidecar(nginx.url, engine=engine)
    sidecar.settings["listeners"]["inbound"]["listen"] = f"127.0.0.1:{nginx.port}"
    sidecar.write_settings()
    sidecar.start(ready=False)
    assert sidecar.process is not None
    assert sidecar.process.wait(20) == 2
    sidecar.process = None
    assert f"listener inbound: 127.0.0.1:{nginx.port}: Address already in use" in (
        sidecar.log.read_text()
    )


def test_an_unusable_state_directory_starts_nothing_and_traffic_passes(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, user: Callable[..., str]
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine)
    (sidecar.directory / "state").write_text("in the way")
    sidecar.experiment(faults=ERROR)
    sidecar.start()
    assert sidecar.state() == "pending"
    assert code(sidecar, user("experiment")) == 200
    readyz = httpx.get(f"{sidecar.admin}/readyz")
    assert "state" in readyz.text
    assert "no run starts" in readyz.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, None])
def test_a_new_supervisor_takes_over_without_a_failed_request(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    until: Callable[..., Any],
    number: int | None,
) -> None:
    """After a crash, from one that is stalled, and from one that is well."""
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    workers, old = sidecar.workers(), sidecar.process
    assert old is not None
    with Clients(sidecar.url, "keep-alive") as one, Clients(sidecar.url, "close") as other:
        until(lambda: min(one.count, other.count) > 50)
        if number is not None:
            old.send_signal(number)
        if number == signal.SIGKILL:
            old.wait()
        sidecar.start()
        until(lambda: sorted(sidecar.workers()) == sorted(workers))
        before = min(one.count, other.count)
        until(lambda: min(one.count, other.count) > before + 50)
    assert old.wait(10) == (0 if number is None else -signal.SIGKILL)
    assert (one.wrong, other.wrong) == ([], [])


def test_a_supervisor_in_a_crash_loop_costs_no_request(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, until: Callable[..., Any]
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


def test_orphans_leave_after_their_bound(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, until: Callable[..., Any]
) -> None:
    sidecar = make_sidecar(
        make_nginx(HELLO).url, limits={"enrolled": "100%", "orphans": "1s"}
    ).start()
    (pid,) = sidecar.workers()
    assert sidecar.process is not None
    sidecar.process.kill()
    sidecar.process.wait()
    sidecar.process = None
    assert httpx.get(sidecar.url).status_code == 200
    until(lambda: refused(sidecar.port))
    until(lambda: not alive(pid))


def test_sigterm_while_it_starts_ends_it_at_once(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, until: Callable[..., Any]
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine).start(ready=False)
    process = sidecar.process
    assert process is not None
    until(lambda: not refused(sidecar.admin_port))
    process.terminate()
    assert process.wait(15) == 0
    sidecar.process = None
    assert refused(sidecar.port)
