"""Doses that are counted hold for the sidecar as a whole, whatever the number of workers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.fresh_run import Runs
from tests.support.http1_wire import connect, read_answer
from tests.support.open_resources import leaves_nothing
from tests.support.programs import Nginx, Sidecar, until


@dataclass
class World(Runs):
    """A sidecar whose experiment begins a new run for each dose."""

    hits: list[str] = field(default_factory=list)
    """Who got a fault, each time."""

    def dose(self, dose: dict[str, Any]) -> None:
        self.run += 1
        self.begin({"error": 503, "dose": dose})

    def ask(self, who: str) -> int:
        """The status of an answer on a connection of its own, by whichever worker."""
        with connect(self.sidecar.port) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id: {who}\r\n\r\n".encode())
            status = read_answer(sock).status
        if status == 503:
            self.hits.append(who)
        return status

    def statuses(self, users: list[str]) -> list[int]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(self.ask, users))

    def performed(self) -> float:
        return self.faults(fault="error", result="performed")


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, marks=pytest.mark.slow), 3],
    ids=["one worker", "three workers"],
)
def world(
    tmp_path_factory: pytest.TempPathFactory, engine: str, request: pytest.FixtureRequest
) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("doses")
    settings = {"engine": engine, "workers": request.param}
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", 'location / { return 200 "hello"; }')
        stack.callback(nginx.stop)
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        world = World(sidecar.start())
        world.dose({"first": 1})  # with Envoy, for workers to be there
        world.stop()
        stack.enter_context(leaves_nothing(sidecar))
        yield world


def test_the_first_requests_of_each_user_get_the_fault(world: World) -> None:
    world.dose({"first": 3})
    ann, bob, control = world.user(), world.user(skip=1), world.user("control")
    found = world.statuses([ann, bob, control] * 10)
    assert [found[i::3].count(503) for i in range(3)] == [3, 3, 0]
    assert world.ask(ann) == 200
    again = world.user(skip=2)
    assert [world.ask(again) for _ in range(5)] == [503] * 3 + [200] * 2


def test_each_run_has_a_burst_of_its_own_of_all_users_together(world: World) -> None:
    for _ in range(2):
        world.dose({"burst": 5, "every": "1h"})
        users = [world.user(skip=i) for i in range(8)]
        assert world.statuses(users * 5).count(503) == 5
    until(lambda: world.performed() == len(world.hits))


def test_a_burst_begins_anew_when_its_time_has_come(world: World) -> None:
    every = 2.0
    world.dose({"burst": 5, "every": f"{every:g}s"})
    who, start = world.user(), time.monotonic()
    first = [world.ask(who) for _ in range(7)]
    assert time.monotonic() - start < every, "too slow to tell"
    assert first == [503] * 5 + [200] * 2
    until(lambda: world.ask(who) == 503)
    assert time.monotonic() - start >= every - 0.01
    assert [world.ask(who) for _ in range(5)] == [503] * 4 + [200]
