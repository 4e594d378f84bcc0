"""Runs come to a verdict, the same on each engine, through the real sidecar under real load."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.many_users import Visits, names, shop_visits
from tests.support.programs import Nginx, Sidecar, until, user

OK = "location / { return 200 'ok'; } location /missing { return 404; }"
SUCCESS = {"name": "pages", "at": "inbound", "success_rate": {"drop": "5pp"}}
SLOW = {"name": "slow", "at": "inbound", "slow": {"over": "500ms", "rise": "5pp"}}
ERROR = [{"at": "inbound", "error": 503}]
HARMLESS = [{"at": "inbound", "latency": "1ms"}]
MINUTE = 60
NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment of its own in the sidecar that all tests share."""

    sidecar: Sidecar
    name: str

    def start(self, **said: Any) -> None:
        self.sidecar.experiment(self.name, **said)

    def running(self, **said: Any) -> None:
        self.sidecar.running(self.name, **said)

    @property
    def state(self) -> str | None:
        return self.sidecar.state(self.name)

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self.sidecar.get(f"/api/experiments/{self.name}")
        return found

    def ended(self, state: str = "done") -> dict[str, Any]:
        """All there is to say of it when it is over."""
        until(lambda: self.state in ("done", "stopped"), deadline=MINUTE)
        found = self.seen
        assert found["state"] == state, found["verdict"]
        assert not found["verdict"]["provisional"]
        return found

    def performed(self) -> float:
        """Faults, as far as the workers have told."""
        return self.metric("faults_total", result="performed")

    def metric(self, name: str, **labels: str) -> float:
        return self.sidecar.metric(f"counterfault_{name}", experiment=self.name, **labels)

    def user(self, cohort: str) -> str:
        return user(cohort, self.name)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Sidecar]:
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), OK)
    settings = {"engine": engine, "unit": [{"header": "x-user-id"}]}
    sidecar = Sidecar(tmp_path_factory.mktemp("sidecar"), nginx.url, settings)
    try:
        yield sidecar.start()
    finally:
        sidecar.stop()
        nginx.stop()


@pytest.fixture
def trial(shared: Sidecar) -> Iterator[Trial]:
    name = f"x{next(NUMBERS)}"
    yield Trial(shared, name)
    Path(shared.directory, "experiments", f"{name}.yaml").unlink()
    shared.post("/-/reload")  # its users are free for the next


def test_harm_stops_the_run_and_refutes_the_hypothesis(trial: Trial) -> None:
    with shop_visits(trial.sidecar.port, names(500)) as visits:
        trial.start(baseline="1s", steady_state=[SUCCESS], faults=ERROR)
        found = trial.ended("stopped")
        until(trial.sidecar.acts)
        stopped = time.monotonic()
        until(lambda: len(visits.since(stopped)) and _later(visits, stopped) > 100)
    assert visits.since(stopped) == {200}
    # What the users saw is what was counted, and there it ends.
    until(lambda: trial.performed() == visits.count(503))
    assert found["verdict"]["result"] == "refuted"
    assert "pages: 100 pp more requests failed" in found["verdict"]["reason"]
    assert "5 pp allowed" in found["verdict"]["reason"]
    assert trial.metric("verdict", verdict="refuted") == 1
    assert trial.metric("verdict") == 1
    (metric,) = found["metrics"]
    assert metric["lower"] > metric["allowed"]
    assert trial.metric("effect", metric="pages", bound="lower") == metric["lower"]
    assert trial.metric("evidence", metric="pages", side="harm") == metric["evidence"]["harm"]


def _later(visits: Visits, moment: float) -> int:
    return sum(began > moment for began, _ in visits.asked)


def test_a_fault_that_nobody_notices_is_held(trial: Trial) -> None:
    with shop_visits(trial.sidecar.port, names(500), rate=400):
        trial.start(
            baseline="1s",
            duration="5s",
            recovery="1s",
            steady_state=[SUCCESS, SLOW],
            faults=HARMLESS,
        )
        found = trial.ended()
    assert found["verdict"]["result"] == "held", found["verdict"]["reason"]
    assert found["dose"]["share"] > 0.99
    for metric in found["metrics"]:
        assert metric["upper"] < metric["allowed"]
        assert metric["control"]["events"] > 100
    assert 100 < found["users"]["control"] < 200
    assert {p["state"] for p in found["points"]} == {"baseline", "running", "recovering"}


def test_a_fault_that_matches_nothing_is_invalid(trial: Trial) -> None:
    with shop_visits(trial.sidecar.port, names(200)):
        trial.start(
            duration="2s",
            steady_state=[SUCCESS],
            faults=[{"at": "inbound", "match": {"path": "/nowhere"}, "error": 503}],
        )
        found = trial.ended()
    assert found["verdict"]["result"] == "invalid"
    assert "no request of the experiment cohort matched" in found["verdict"]["reason"]


def test_a_load_balancers_ids_are_inconclusive(trial: Trial) -> None:
    """Who sends the address of its balancer as the user id has as many users as balancers."""
    with shop_visits(trial.sidecar.port, [trial.user("control"), trial.user("experiment")]):
        trial.start(duration="3s", steady_state=[SUCCESS], faults=HARMLESS)
        found = trial.ended()
    assert found["verdict"]["result"] == "inconclusive"
    assert "a handful of users" in found["verdict"]["reason"]
    assert found["metrics"][0]["control"]["events"] > 100


def test_a_stop_reaches_the_data_plane_within_a_quarter_of_a_second(shared: Sidecar) -> None:
    """The best of some: on a busy machine anybody may have to wait for a processor."""
    took = []
    for _ in range(5):
        name = f"x{next(NUMBERS)}"
        with shop_visits(shared.port, [user("experiment", name)]) as visits:
            shared.running(name, faults=ERROR)
            until(lambda seen=visits: seen.count(503) > 10)  # type: ignore[misc]
            began = time.monotonic()
            shared.post(f"/api/experiments/{name}/stop")
            stopped = time.monotonic()
            until(lambda seen=visits, at=stopped: _later(seen, at) > 20)  # type: ignore[misc]
        # Whoever asks after the answer has no fault, however long that took.
        assert visits.since(stopped) == {200}
        last = max(at for at, status in visits.asked if status == 503)
        took.append(max(stopped, last) - began)
        assert shared.get(f"/api/experiments/{name}")["verdict"]["result"] == "inconclusive"
        Path(shared.directory, "experiments", f"{name}.yaml").unlink()
        shared.post("/-/reload")
    assert min(took) < 0.25, took


def test_an_edit_during_a_run_begins_the_comparison_anew(trial: Trial) -> None:
    with shop_visits(trial.sidecar.port, names(200)):
        trial.running(steady_state=[SUCCESS], faults=HARMLESS)
        until(lambda: trial.seen["metrics"][0]["control"]["events"] > 200)
        trial.start(
            baseline="1h", steady_state=[SUCCESS], faults=[{"at": "inbound", "latency": "2ms"}]
        )
        until(lambda: trial.state == "baseline")
    found = trial.seen
    assert found["metrics"] == [] or found["metrics"][0]["control"]["events"] == 0
    assert found["verdict"]["provisional"]
