"""The plan: assignment across experiments, decisions, what is measured."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.plan import NOTHING, Plan
from counterfault.proxy.experiments.cohorts import Arcs, Cohort, Enrolment
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, Epoch, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.faults.actions import Delay, Respond
from counterfault.proxy.values.request import Request

EXPERIMENTED = Enrolment("a", Cohort.EXPERIMENT, 3)
ADA = b"ada"


def sidecar(**changes: Any) -> Sidecar:
    listener = {"listen": "127.0.0.1:1", "upstream": ["http://a", "http://b", "http://c"]}
    return Sidecar.model_validate({"service": "s", "listeners": {"inbound": listener}, **changes})


def experiment(name: str = "a", **changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "experiment": name,
            "state": "running",
            "duration": "30s",
            "cohorts": {"experiment": "50%", "control": "50%"},
            "faults": [{"at": "inbound", "error": 503}],
            **changes,
        }
    )


def plan(
    *experiments: Experiment, state: State = State.RUNNING, settings: Sidecar | None = None
) -> Plan:
    runs = {e.name: RunStatus(Epoch.of("1.0", state)) for e in experiments}
    return Plan(settings or sidecar(), experiments, runs)


def request(method: str = "GET", target: str = "/", **headers: str) -> Request:
    fields = tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())
    return Request(method.encode(), b"shop:80", target.encode(), fields)


def never() -> float:
    raise AssertionError("nothing to draw")


@given(st.binary(min_size=1, max_size=40))
def test_a_unit_is_in_at_most_one_experiment_the_first_in_file_order(unit: bytes) -> None:
    names = ("a", "b", "c")
    shares = {"experiment": "20%", "control": "20%"}
    made = plan(*(experiment(n, cohorts=shares) for n in names))
    found = [Arcs(n, f"{n}#1".encode(), 0.2, 0.2).enrolment_of(unit) for n in names]
    expected = next((c for c in found if c is not None), None)
    assert made.assign(request(), unit, None) == expected


@pytest.mark.parametrize("state", list(State))
def test_only_live_runs_enrol(state: State) -> None:
    assert (plan(experiment(), state=state).assign(request(), ADA, None) is not None) == (
        state in LIVE
    )


def test_no_unit_no_enrolment() -> None:
    assert plan(experiment()).assign(request(), None, None) is None


@pytest.mark.parametrize("target", ["/healthz", "/healthz?full=1", "/metrics"])
def test_a_protected_path_is_never_enrolled(target: str) -> None:
    made = plan(experiment())
    assert made.assign(request(target=target), ADA, None) is None
    assert made.assign(request(target=target), ADA, EXPERIMENTED) is None


def test_a_tag_decides_even_without_a_unit() -> None:
    assert plan(experiment()).assign(request(), None, EXPERIMENTED) == EXPERIMENTED


def test_a_tag_of_an_unknown_experiment_makes_a_bystander() -> None:
    foreign = Enrolment("elsewhere", Cohort.EXPERIMENT, 3)
    assert plan(experiment()).assign(request(), ADA, foreign) is None


@pytest.mark.parametrize(
    ("headers", "unit"),
    [
        ({"x_user_id": "a", "cookie": "session=b"}, b"a"),
        ({"cookie": "other=1; session=b"}, b"b"),
        ({"baggage": "x=1, counterfault.unit=c;p=2", "x_user_id": "a"}, b"c"),
        ({"x_user_id": "", "cookie": "session=b"}, b"b"),
        ({"accept": "*/*"}, None),
    ],
)
def test_the_first_unit_source_present_wins(headers: dict[str, str], unit: bytes | None) -> None:
    sources = [{"baggage": "counterfault.unit"}, {"header": "x-user-id"}, {"cookie": "session"}]
    assert plan(settings=sidecar(unit=sources)).unit(request(**headers)) == unit


def test_the_first_value_of_a_repeated_header_counts() -> None:
    fields = ((b"X-User-Id", b"one"), (b"x-user-id", b"two"))
    assert plan().unit(Request(b"GET", b"", b"/", fields)) == b"one"


def decided(faults: Sequence[dict[str, Any]], draws: Sequence[float] = (), **asked: Any) -> Any:
    made = plan(experiment(faults=[{"at": "inbound", **f} for f in faults]))
    return made.decide("inbound", request(**asked), EXPERIMENTED, iter([*draws]).__next__)


def test_faults_come_in_their_order() -> None:
    decision = decided(
        [{"latency": "1s"}, {"error": 503}, {"latency": "2s", "when": "after"}], [0] * 2
    )
    assert [type(i.action) for i in decision.before] == [Delay, Respond]
    assert [i.action for i in decision.after] == [Delay(2.0)]
    assert [i.rule for i in (*decision.before, *decision.after)] == [0, 1, 2]


@pytest.mark.parametrize("cohort", [Cohort.CONTROL])
def test_control_gets_no_fault(cohort: Cohort) -> None:
    enrolment = Enrolment("a", cohort, 0)
    assert plan(experiment()).decide("inbound", request(), enrolment, never) is NOTHING


@pytest.mark.parametrize("state", [State.BASELINE, State.RECOVERING])
def test_faults_happen_only_while_running(state: State) -> None:
    made = plan(experiment(), state=state)
    assert made.decide("inbound", request(), EXPERIMENTED, never) is NOTHING


def test_a_fault_that_does_not_match_is_not_drawn() -> None:
    rule = {"error": 503, "match": {"method": "POST", "prefix": "/charge"}}
    assert decided([rule]).before == ()
    assert decided([rule], method="POST", target="/charge/1").before != ()


def test_the_dose_is_the_share_of_draws_below_it() -> None:
    rule = {"error": 503, "dose": "30%"}
    hits = [bool(decided([rule], [u / 100]).before) for u in range(100)]
    assert sum(hits) == 30


@pytest.mark.parametrize(
    ("method", "unsafe", "hit"),
    [("GET", False, True), ("PUT", False, True), ("POST", False, False), ("POST", True, True)],
)
def test_a_fault_after_the_work_spares_what_must_not_be_repeated(
    method: str, unsafe: bool, hit: bool
) -> None:
    rule = {"error": 503, "when": "after", "unsafe": unsafe}
    assert bool(decided([rule], method=method).after) == hit


def test_an_ended_epoch_may_not_inject() -> None:
    running, recovering = plan(experiment()), plan(experiment(), state=State.RECOVERING)
    assert running.injects("a", Epoch("1.0.running"))
    assert not recovering.injects("a", Epoch("1.0.running"))


def test_metrics_are_measured_where_they_match() -> None:
    metric = {"name": "checkout", "at": "inbound", "success_rate": {"drop": "1pp"}}
    made = plan(experiment(steady_state=[{**metric, "match": {"path": "/checkout"}}]))
    measured = made.measured("inbound", request(target="/checkout?x"), EXPERIMENTED)
    assert [m.metric.name for m in measured] == ["checkout"]
    assert made.measured("inbound", request(target="/"), EXPERIMENTED) == ()


def test_what_prometheus_knows_is_measured_at_no_listener() -> None:
    metric = {"name": "orders", "prometheus": {"query": "$cohort", "drop": "5%"}}
    made = plan(experiment(steady_state=[metric]))
    assert made.measured("inbound", request(), EXPERIMENTED) == ()


def test_upstreams_are_sticky_by_unit_and_losing_one_moves_only_its_users() -> None:
    route = plan().routes["inbound"]
    orders = {f"u{i}".encode(): route.nodes(f"u{i}".encode()) for i in range(3000)}
    assert all(sorted(order) == ["http://a", "http://b", "http://c"] for order in orders.values())
    firsts = [order[0] for order in orders.values()]
    assert min(firsts.count(node) for node in set(firsts)) > 600
    without_a = Plan(
        sidecar(
            listeners={"inbound": {"listen": "127.0.0.1:1", "upstream": ["http://b", "http://c"]}}
        ),
        (),
        {},
    ).routes["inbound"]
    moved = [u for u, order in orders.items() if order[0] != without_a.nodes(u)[0]]
    assert all(orders[u][0] == "http://a" for u in moved)


@pytest.mark.parametrize("state", list(State))
def test_a_forward_listener_intercepts_the_hosts_that_live_runs_name_there(state: State) -> None:
    listeners = {
        name: {"listen": f"127.0.0.1:{port}", "mode": "forward"}
        for port, name in enumerate(("out", "other"), 1)
    }
    faults = [
        {"at": "out", "error": 503, "match": {"host": "A.example"}},
        {"at": "other", "error": 503, "match": {"host": "b.example"}},
        {"at": "out", "error": 503},
    ]
    metric = {"name": "m", "at": "out", "match": {"host": "c.example"}}
    metrics = [metric | {"success_rate": {"drop": "1pp"}}]
    made = experiment(faults=faults, steady_state=metrics)
    route = plan(made, state=state, settings=sidecar(listeners=listeners)).routes["out"]
    assert route.forward
    assert route.hosts == ({"a.example", "c.example"} if state in LIVE else set())
