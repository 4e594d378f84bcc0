"""The wall clock is set an hour ahead and back in a running sidecar, and nothing happens.

On Envoy it is the supervisor's alone, so that whatever it told Envoy by that clock would be an hour
off. Envoy itself cannot be started so: its allocator looks at the clock while it sets itself up,
where libfaketime, asked for the first time, allocates, and each waits for the other.
"""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from counterfault.proxy.engines.envoy.runtime.binary import find_envoy
from tests.support import http_clients
from tests.support.conformance import primary_engine
from tests.support.http1_wire import connect, read_answer
from tests.support.persistent_clients import Clients
from tests.support.programs import DEADLINE, Nginx, Sidecar, program, until, user

HOUR = 3600
# Seconds that a step may be off: what passes between two looks at a clock.
SLACK = 60
DURATION = 4.0
LEASE = 20.0
DELAY = 1.5
# Of clients that come all the time, in seconds: no step lasts as short as that.
PAUSE = 0.02
HEAD = b"GET / HTTP/1.1\r\nhost: shop.test\r\n"
SMALL = {"experiment": "10%", "control": "10%"}
FAULTS = [
    {"at": "inbound", "match": {"path": "/late"}, "latency": f"{DELAY:g}s"},
    {"at": "inbound", "match": {"path": "/faulty"}, "error": 503},
]


class WallClock:
    """The wall clock of processes that are started with its environment."""

    def __init__(self, directory: Path, faketime: str) -> None:
        self._file = directory / "clock"
        self.set(0)
        asked = [faketime, "-m", "-f", "+0", "sh", "-c", 'printf %s "$LD_PRELOAD"']
        library = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead: int) -> None:
        """So many seconds ahead of the real one, at once."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{ahead:+d}\n")
        beside.rename(self._file)


type World = tuple[Sidecar, WallClock]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    """A sidecar of either engine, and its clock."""
    directory = tmp_path_factory.mktemp("clock")
    clock = WallClock(directory, program("faketime"))
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", 'location / { return 200 "hello"; }')
        stack.callback(nginx.stop)
        # Far below an hour, and far above what a busy machine needs.
        limits = {"enrolled": "100%", "lease": f"{LEASE:g}s", "idle": "5m", "head_time": "5m"}
        sidecar = Sidecar(directory / "sidecar", nginx.url, {"engine": engine, "limits": limits})
        if engine == "envoy":
            sidecar.settings["envoy"] = {"path": str(_real_clock(directory))}
            sidecar.write_settings()
        sidecar.environment = clock.environment
        stack.callback(sidecar.stop)
        yield sidecar.start(), clock


def _real_clock(directory: Path) -> Path:
    """Envoy, without our library."""
    script = directory / "envoy"
    script.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {find_envoy(None, Path())} "$@"\n')
    script.chmod(0o700)
    return script


def ahead(sidecar: Sidecar) -> float:
    """By how much the supervisor's wall clock is ahead, as it says itself."""
    sidecar.post("/-/reload")
    said = sidecar.metric("counterfault_config_last_reload_timestamp_seconds")
    return said - time.time()


def step(sidecar: Sidecar, clock: WallClock, offset: int) -> None:
    clock.set(offset)
    assert abs(ahead(sidecar) - offset) < SLACK


def lease(sidecar: Sidecar) -> float:
    return sidecar.metric("counterfault_lease_remaining_seconds")


def events(sidecar: Sidecar, name: str) -> list[str]:
    """The states that the run has been in, in order."""
    with closing(sqlite3.connect(sidecar.directory / "state" / "history.sqlite")) as db:
        found = db.execute("SELECT state FROM events WHERE experiment = ? ORDER BY rowid", [name])
        return [state for (state,) in found]


def late(url: str, headers: dict[str, str]) -> tuple[int, float]:
    """The status of the answer, and after how many seconds it came."""
    start = time.monotonic()
    status = http_clients.get(url, headers=headers, timeout=60).status_code
    return status, time.monotonic() - start


def test_steps_of_an_hour_either_way_change_nothing(world: World, engine: str) -> None:
    sidecar, clock = world
    sidecar.running(faults=FAULTS, cohorts=SMALL)
    workers = sidecar.workers()
    for pid in workers:  # they look at the same clock, but for Envoy
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert ("libfaketime" in maps) == (engine == "mitmproxy")
    victim = {"x-user-id": user("experiment", share=0.1)}
    with (
        Clients(sidecar.url, pause=PAUSE) as kept,
        Clients(sidecar.url, "close", user("control", share=0.1), PAUSE) as fresh,
        ThreadPoolExecutor(1) as pool,
        connect(sidecar.port) as idle,
        connect(sidecar.port) as slow,
    ):
        slow.sendall(HEAD)
        for offset in (HOUR, 0, -HOUR, 0):
            held = pool.submit(late, f"{sidecar.url}/late", victim)
            until(lambda: sidecar.metric("counterfault_faults_active") == 1)
            step(sidecar, clock, offset)
            status, seconds = held.result(DEADLINE)
            assert (status, seconds > DELAY) == (200, True)
            assert http_clients.get(f"{sidecar.url}/faulty", headers=victim).status_code == 503
            assert 0 < lease(sidecar) <= LEASE
            # Renewed: more is left than at the least so far; the first look may have seen the most.
            seen = [lease(sidecar)]
            until(partial(_more, sidecar, seen))
        slow.sendall(b"\r\n")
        idle.sendall(HEAD + b"\r\n")
        assert read_answer(slow).status == read_answer(idle).status == 200
        assert min(kept.count, fresh.count) > 0
    assert (kept.wrong, fresh.wrong) == ([], [])
    assert events(sidecar, "x") == ["running"]
    assert sidecar.workers() == workers
    assert sidecar.metric("counterfault_internal_errors_total") == 0


def _more(sidecar: Sidecar, seen: list[float]) -> bool:
    seen.append(lease(sidecar))
    return seen[-1] > min(seen)


@primary_engine("mitmproxy")
@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_run_lasts_its_duration_by_a_clock_that_is_never_set(world: World, offset: int) -> None:
    sidecar, clock = world
    name = "later" if offset > 0 else "earlier"
    begun = time.monotonic()
    sidecar.experiment(name, duration=f"{DURATION:g}s", faults=FAULTS, cohorts=SMALL)
    # Whether the data plane acts already is another matter: it may take as long as the run.
    until(lambda: sidecar.state(name) == "running")
    seen = time.monotonic()
    step(sidecar, clock, offset)
    until(lambda: sidecar.state(name) == "done", deadline=DURATION + DEADLINE)
    assert time.monotonic() - begun > DURATION
    assert time.monotonic() - seen < DURATION + DEADLINE
    step(sidecar, clock, 0)
