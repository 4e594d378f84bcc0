"""Reports and verdicts of real runs: `run --until-done`, `report`, and what a kill -9 leaves."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from counterfault.proxy.cli.main import main
from counterfault.proxy.runs.history import History
from tests.support import http_clients
from tests.support.conformance import primary_engine
from tests.support.history_invariants import Runs, checked_history
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar

SHORT = {"baseline": "1s", "duration": "3s", "recovery": "1s"}
ERROR = [{"at": "inbound", "error": 503}]
HARMLESS = [{"at": "inbound", "latency": "1ms"}]
SUCCESS = {"name": "success", "at": "inbound", "success_rate": {"drop": "20pp"}}
SPEED = {"name": "p50", "at": "inbound", "latency": {"quantile": 0.5, "rise": "500%"}}
KILLS = 12


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str) -> Sidecar:
    return make_sidecar(make_nginx("location / { return 200 hello; }").url, engine=engine)


@pytest.fixture
def plain(make_sidecar: MakeSidecar, make_nginx: MakeNginx) -> Sidecar:
    """With workers: for what only the supervisor has to do with."""
    return make_sidecar(make_nginx("location / { return 200 hello; }").url)


@contextmanager
def users(sidecar: Sidecar) -> Iterator[None]:
    """Several hundred users who come again and again, until the sidecar is gone."""
    over = threading.Event()

    def come(seed: int) -> None:
        choose = random.Random(seed)
        with http_clients.Client() as client:
            while not over.is_set():
                who = {"x-user-id": f"user-{choose.randrange(400)}"}
                try:
                    client.get(sidecar.url, headers=who)
                except httpx.TransportError:
                    over.wait(0.05)

    threads = [threading.Thread(target=come, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def begin(sidecar: Sidecar) -> subprocess.Popen[bytes]:
    """`run --until-done`; what it prints is in `out`, what it logs in the sidecar's log."""
    with sidecar.log.open("ab") as log, (sidecar.directory / "out").open("wb") as out:
        command = [
            sys.executable,
            "-m",
            "counterfault",
            "run",
            "--until-done",
            str(sidecar.directory),
        ]
        sidecar.process = subprocess.Popen(command, stdout=out, stderr=log)
    return sidecar.process


def end(sidecar: Sidecar) -> tuple[int, str]:
    assert sidecar.process is not None
    code = sidecar.process.wait(60)
    sidecar.process = None
    return code, (sidecar.directory / "out").read_text()


def until_done(sidecar: Sidecar) -> tuple[int, str]:
    """The exit code and what was printed, after traffic until the end."""
    begin(sidecar)
    with users(sidecar):
        return end(sidecar)


def offline(sidecar: Sidecar, *more: str) -> int:
    return main(["report", "x", "--state-dir", str(sidecar.directory / "state"), *more])


@primary_engine("mitmproxy")
def test_a_refuted_hypothesis_ends_with_1_and_every_format_tells_it(
    sidecar: Sidecar, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar.experiment(faults=ERROR, steady_state=[SUCCESS, SPEED], **SHORT)
    code, said = until_done(sidecar)
    assert code == 1, said + sidecar.log.read_text()
    assert said.startswith("x #1: refuted\n")
    assert "success: worse than allowed" in said

    assert offline(sidecar) == 1
    assert capsys.readouterr().out == said
    found = {}
    for form in ("json", "junit", "html"):
        file = tmp_path / form
        assert offline(sidecar, "--format", form, "-o", str(file)) == 1
        found[form] = file.read_text()
    record = json.loads(found["json"])
    assert [e["state"] for e in record["timeline"]] == ["baseline", "running", "stopped"]
    assert record["verdict"]["result"] == "refuted"
    (suite,) = ElementTree.fromstring(found["junit"])
    # The hypothesis and both metrics: an exchange that failed has no latency below any bound.
    assert (suite.attrib["name"], suite.attrib["failures"]) == ("x #1", "3")
    assert "success: failed requests over time, both cohorts" in found["html"]
    assert "p50: distribution of latencies while the faults were on" in found["html"]


@primary_engine("mitmproxy")
def test_a_held_hypothesis_ends_with_0_and_the_run_is_over(sidecar: Sidecar) -> None:
    sidecar.experiment(faults=HARMLESS, steady_state=[SUCCESS], **SHORT)
    code, said = until_done(sidecar)
    assert code == 0, said + sidecar.log.read_text()
    assert said.startswith("x #1: held\n")
    begin(sidecar)
    assert end(sidecar) == (2, "")
    assert "nothing is to be run: x #1 was done before; raise `run`" in sidecar.log.read_text()


@primary_engine("envoy")
def test_a_fault_that_matches_nothing_ends_with_3(sidecar: Sidecar) -> None:
    nothing = [{"at": "inbound", "match": {"path": "/nowhere"}, "error": 503}]
    sidecar.experiment(faults=nothing, steady_state=[SUCCESS], duration="1s")
    code, said = until_done(sidecar)
    assert code == 3
    assert said.startswith("x #1: invalid\n")
    assert "no request of the experiment cohort matched the faults" in said


def test_of_two_experiments_the_worse_verdict_counts(plain: Sidecar) -> None:
    small = {"steady_state": [SUCCESS], "cohorts": {"experiment": "25%", "control": "25%"}}
    plain.experiment("x", faults=HARMLESS, duration="1s", **small)
    plain.experiment("y", faults=ERROR, **small)
    plain.experiment("z", state="paused", faults=ERROR, **small)
    code, said = until_done(plain)
    assert code == 1
    assert "y #1: refuted\n" in said
    assert "x #1: " in said
    assert "z #1" not in said


@primary_engine("mitmproxy")
def test_a_signal_before_the_end_stops_the_run_and_ends_with_3(
    sidecar: Sidecar, until: Callable[..., Any]
) -> None:
    sidecar.experiment(faults=HARMLESS, steady_state=[SUCCESS])
    process = begin(sidecar)
    until(lambda: answers(sidecar) and sidecar.state() == "running")
    process.send_signal(signal.SIGTERM)
    code, said = end(sidecar)
    assert code == 3
    assert said.startswith("x #1: inconclusive\n")
    assert offline(sidecar) == 3


def answers(sidecar: Sidecar) -> bool:
    try:
        return http_clients.get(f"{sidecar.admin}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_where_nothing_can_ever_be_done_it_ends_with_2_and_a_sentence(plain: Sidecar) -> None:
    def said() -> str:
        plain.log.write_text("")
        begin(plain)
        assert end(plain) == (2, "")
        return plain.log.read_text()

    assert said() == "counterfault: nothing is to be run: no experiment says `state: running`\n"
    plain.experiment(faults=ERROR)
    state = plain.directory / "state"
    state.write_text("in the way")
    assert said().startswith(f"counterfault: no run can start: state_dir {state}: ")
    state.unlink()
    history = History(state)
    history.set_killed(True)
    history.close()
    assert said().startswith("counterfault: the kill switch is on: nothing starts until ")
    history = History(state, reading=True)
    assert history.load() == {}  # and no `run` was used up
    history.close()


@primary_engine("mitmproxy")
def test_a_report_comes_from_a_running_sidecar_and_from_a_past_run(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar.start()
    sidecar.running(faults=ERROR)
    sidecar.post("/api/experiments/x/stop")
    sidecar.running(run=2, faults=ERROR)

    def asked(*more: str) -> tuple[int, str]:
        code = main(["report", "x", *more])
        output = capsys.readouterr()
        return code, output.out + output.err

    state = ("--state-dir", str(sidecar.directory / "state"))
    for source in (("--admin", sidecar.admin), state):
        code, said = asked(*source)
        assert (code, said.splitlines()[0]) == (3, "x #2: inconclusive so far")
        code, said = asked(*source, "--run", "1")
        assert (code, said.splitlines()[0]) == (3, "x #1: inconclusive")
        assert "stopped by an operator" in said
        code, said = asked(*source, "--run", "9")
        assert (code, said) == (2, "counterfault: x has no run 9 on record; it has 1, 2\n")


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_a_history_survives_kill_9_at_any_moment(
    plain: Sidecar, until: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed at moments spread over start, baseline, faults, recovery and after; never tidied."""
    choose = random.Random(20261124)
    ended: Runs = {}
    for number in range(1, KILLS + 1):
        lengths = {"baseline": "1s", "duration": "1s", "recovery": "1s"}
        plain.experiment(run=number, faults=HARMLESS, steady_state=[SUCCESS], **lengths)
        process = plain.start(ready=False).process
        assert process is not None
        until(lambda: answers(plain))
        if number % 2:  # else it may be over before its run has begun
            until(lambda: plain.state() not in (None, "pending"))
        with users(plain):
            time.sleep(choose.uniform(0, 3))  # any moment will do
            process.kill()
            process.wait()
        ended |= checked_history(plain.directory / "state", ended)
        if ("x", number) in ended:
            assert offline(plain, "--run", str(number)) in (0, 3)
            assert capsys.readouterr().out.startswith(f"x #{number}: ")
    plain.experiment(run=KILLS + 1, faults=HARMLESS, steady_state=[SUCCESS])
    plain.start()
    until(lambda: plain.state() == "running")
    ended |= checked_history(plain.directory / "state", ended)
    final = {"done", "stopped"}
    assert {state for (_, number), state in ended.items() if number <= KILLS} <= final
    assert len(ended) > KILLS / 2  # the last, and every other one before it
