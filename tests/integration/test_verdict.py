"""Runs come to a verdict, through the real sidecar under real load."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from programs import MakeNginx, MakeSidecar, Sidecar
from shoppers import names, shopping

OK = "location / { return 200 'ok'; } location /missing { return 404; }"
SUCCESS = {"name": "pages", "at": "inbound", "success_rate": {"drop": "5pp"}}
MINUTE = 60


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar, make_nginx: MakeNginx) -> Sidecar:
    return make_sidecar(make_nginx(OK).url, unit=[{"header": "x-user-id"}]).start()


def seen(sidecar: Sidecar, name: str = "x") -> dict[str, Any]:
    found: dict[str, Any] = sidecar.get(f"/api/experiments/{name}")
    return found


def ended(sidecar: Sidecar, until: Callable[..., Any], state: str = "done") -> dict[str, Any]:
    until(lambda: sidecar.state() in ("done", "stopped"), deadline=MINUTE)
    found = seen(sidecar)
    assert found["state"] == state, found["verdict"]
    assert not found["verdict"]["provisional"]
    return found


def test_harm_stops_the_run_and_refutes_the_hypothesis(
    sidecar: Sidecar, until: Callable[..., Any]
) -> None:
    with shopping(sidecar.port, names(500)):
        began = time.monotonic()
        sidecar.experiment(
            baseline="2s", steady_state=[SUCCESS], faults=[{"at": "inbound", "error": 503}]
        )
        found = ended(sidecar, until, "stopped")
        assert time.monotonic() - began < 20
        until(lambda: sidecar.metric("counterfault_faults_active") == 0)
        performed = sidecar.metric("counterfault_faults_total", result="performed")
    assert found["verdict"]["result"] == "refuted"
    assert "pages: 100 pp more requests failed" in found["verdict"]["reason"]
    assert "5 pp allowed" in found["verdict"]["reason"]
    assert sidecar.metric("counterfault_verdict", experiment="x", verdict="refuted") == 1
    assert sidecar.metric("counterfault_verdict", experiment="x") == 1
    assert sidecar.metric("counterfault_faults_total", result="performed") == performed
    (metric,) = found["metrics"]
    assert metric["lower"] > metric["allowed"]
    assert sidecar.metric("counterfault_effect", metric="pages", bound="lower") == metric["lower"]


def test_a_fault_that_nobody_notices_is_held(sidecar: Sidecar, until: Callable[..., Any]) -> None:
    with shopping(sidecar.port, names(500)):
        sidecar.experiment(
            baseline="1s",
            duration="8s",
            recovery="2s",
            steady_state=[SUCCESS, {"name": "slow", "at": "inbound", "slow": SLOW}],
            faults=[{"at": "inbound", "latency": "1ms"}],
        )
        found = ended(sidecar, until)
    assert found["verdict"]["result"] == "held", found["verdict"]["reason"]
    assert found["dose"]["share"] > 0.99
    for metric in found["metrics"]:
        assert metric["upper"] < metric["allowed"]
        assert metric["control"]["events"] > 100
    assert 100 < found["users"]["control"] < 200
    assert {p["state"] for p in found["points"]} == {"baseline", "running", "recovering"}


SLOW = {"over": "500ms", "rise": "5pp"}


def test_a_fault_that_matches_nothing_is_invalid(
    sidecar: Sidecar, until: Callable[..., Any]
) -> None:
    with shopping(sidecar.port, names(200)):
        sidecar.experiment(
            duration="3s",
            steady_state=[SUCCESS],
            faults=[{"at": "inbound", "match": {"path": "/nowhere"}, "error": 503}],
        )
        found = ended(sidecar, until)
    assert found["verdict"]["result"] == "invalid"
    assert "no request of the experiment cohort matched" in found["verdict"]["reason"]


def test_a_load_balancers_ids_are_inconclusive(
    sidecar: Sidecar, until: Callable[..., Any], user: Callable[..., str]
) -> None:
    """Who sends the address of its balancer as the user id has as many users as balancers."""
    balancers = [user("control"), user("experiment")]
    with shopping(sidecar.port, balancers):
        sidecar.experiment(
            duration="5s",
            steady_state=[SUCCESS],
            faults=[{"at": "inbound", "latency": "1ms"}],
        )
        found = ended(sidecar, until)
    assert found["verdict"]["result"] == "inconclusive"
    assert "a handful of users" in found["verdict"]["reason"]
    assert found["metrics"][0]["control"]["events"] > 100


def test_a_stop_reaches_the_workers_within_a_quarter_of_a_second(
    sidecar: Sidecar, user: Callable[..., str]
) -> None:
    sidecar.running(faults=[{"at": "inbound", "error": 503}])
    began = time.monotonic()
    sidecar.post("/api/experiments/x/stop")
    assert time.monotonic() - began < 0.25
    with shopping(sidecar.port, [user("experiment")]):
        time.sleep(0.3)  # nothing is to happen, which takes a while to see
    assert sidecar.metric("counterfault_faults_total", result="performed") == 0
    assert seen(sidecar)["verdict"]["result"] == "inconclusive"


def test_an_edit_during_a_run_begins_the_comparison_anew(
    sidecar: Sidecar, until: Callable[..., Any]
) -> None:
    faults = [{"at": "inbound", "latency": "1ms"}]
    with shopping(sidecar.port, names(200)):
        sidecar.running(steady_state=[SUCCESS], faults=faults)
        until(lambda: seen(sidecar)["metrics"][0]["control"]["events"] > 200)
        sidecar.experiment(
            baseline="1h", steady_state=[SUCCESS], faults=[{"at": "inbound", "latency": "2ms"}]
        )
        until(lambda: sidecar.state() == "baseline")
    assert seen(sidecar)["metrics"] == [] or (seen(sidecar)["metrics"][0]["control"]["events"] == 0)
    assert seen(sidecar)["verdict"]["provisional"]
