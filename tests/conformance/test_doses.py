"""Doses that are counted hold for the sidecar as a whole, whatever the number of workers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from programs import MakeNginx, MakeSidecar, Sidecar, until, user
from wire import connect, read_answer


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def sidecar(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, request: pytest.FixtureRequest
) -> Sidecar:
    nginx = make_nginx('location / { return 200 "hello"; }')
    found = make_sidecar(nginx.url, engine=engine, workers=request.param).start()
    found.running(
        faults=[
            {"at": "inbound", "match": {"path": f"/{name}"}, "error": 503, "dose": dose}
            for name, dose in {
                "first": {"first": 3},
                "burst": {"burst": 5, "every": "1h"},
                "often": {"burst": 5, "every": "1s"},
            }.items()
        ]
    )
    return found


def asking(sidecar: Sidecar, path: str) -> Callable[[str], int]:
    def ask(who: str) -> int:  # on a connection of its own, at whichever worker
        with connect(sidecar.port) as sock:
            sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nX-User-Id: {who}\r\n\r\n".encode())
            return read_answer(sock).status

    return ask


def statuses(sidecar: Sidecar, path: str, users: list[str]) -> list[int]:
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(asking(sidecar, path), users))


def test_the_first_requests_of_each_user_get_the_fault(sidecar: Sidecar) -> None:
    ann, bob, control = user("experiment"), user("experiment", skip=1), user("control")
    found = statuses(sidecar, "first", [ann, bob, control] * 10)
    assert [found[i::3].count(503) for i in range(3)] == [3, 3, 0]
    assert asking(sidecar, "first")(ann) == 200
    again = user("experiment", skip=2)
    assert [asking(sidecar, "first")(again) for _ in range(5)] == [503] * 3 + [200] * 2


def test_a_burst_is_so_many_of_all_users_together(sidecar: Sidecar) -> None:
    users = [user("experiment", skip=i) for i in range(8)]
    assert statuses(sidecar, "burst", users * 5).count(503) == 5
    labels = {"fault": "error", "result": "performed"}
    until(lambda: sidecar.metric("counterfault_faults_total", **labels) == 5)


def test_a_burst_begins_anew_when_its_time_has_come(sidecar: Sidecar) -> None:
    ask, who = asking(sidecar, "often"), user("experiment")
    start = time.monotonic()
    first = [ask(who) for _ in range(7)]
    assert time.monotonic() - start < 1
    assert first == [503] * 5 + [200] * 2
    while ask(who) == 200:
        assert time.monotonic() - start < 5
    assert time.monotonic() - start >= 0.99
    assert [ask(who) for _ in range(5)] == [503] * 4 + [200]


def test_a_new_run_has_a_burst_of_its_own(sidecar: Sidecar) -> None:
    rule = {"at": "inbound", "error": 503, "dose": {"burst": 5, "every": "1h"}}
    for run in (2, 3):
        sidecar.experiment(run=run, faults=[rule])
        until(partial(_runs, sidecar, run))
        users = [user("experiment", run=run, skip=i) for i in range(3)]
        assert statuses(sidecar, "", users * 5).count(503) == 5


def _runs(sidecar: Sidecar, run: int) -> bool:
    found = sidecar.get("/api/experiments/x")
    return bool(found["run"] == run and found["state"] == "running")
