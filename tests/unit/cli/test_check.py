"""`counterfault check` tells who is hit, where, how much and how long."""

from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.analysis.comparison import Threshold
from counterfault.proxy.analysis.sample_size import expected
from counterfault.proxy.cli.check import summary
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config
from counterfault.proxy.experiments.steady_state import Metric

SIDECAR: dict[str, Any] = {
    "service": "shop",
    "listeners": {
        "inbound": {"listen": "127.0.0.1:8080", "upstream": "http://127.0.0.1:3000"},
        "payments": {"listen": "127.0.0.1:9101", "upstream": ["http://a:1", "http://b:1"]},
    },
}
EXPERIMENT = {
    "experiment": "slow",
    "state": "running",
    "duration": "90s",
    "cohorts": {"experiment": "1%", "control": "2%"},
    "faults": [{"at": "payments", "latency": "400ms"}],
}


def lines(*experiments, **sidecar):
    wire = {"directory": ".", "sidecar": SIDECAR | sidecar, "experiments": list(experiments)}
    return summary(Config.from_wire(wire))


def line(label, experiment):
    """The line with a label, and those below it."""
    found = lines(EXPERIMENT | experiment)
    start = next(n for n, text in enumerate(found) if text.strip().startswith(label))
    block = [found[start].replace(label, "", 1).strip()]
    for text in found[start + 1 :]:
        if not text.startswith(" " * 12):
            break
        block.append(text.strip())
    return block


def test_the_shipped_configuration_reads_like_this():
    assert summary(load(Path(__file__).parents[3] / "config")) == [
        "slow-payments: running, run 1",
        "  Checkout keeps working while payments are slow",
        "  users     1% experiment, 1% control, by baggage counterfault.unit, header x-user-id, "
        "else cookie session",
        "  fault     POST /charge* at payments (https://payments.example:443)",
        "            latency p50 400ms, p99 2s; each of them, before the upstream",
        "  holds if  checkout-success  success rate at most 0.5pp below control, "
        "/checkout at inbound",
        "            checkout-p99      p99 latency at most 20% above control, /checkout at inbound",
        "            orders            events at most 5% below control, "
        "/checkout, answered 2xx at inbound",
        "  needs     checkout-success  about 5,415 requests "
        "of at least 600 users in each cohort (if 1% fail in both)",
        "            checkout-p99      about 2,942 requests "
        "of at least 583 users in each cohort (if latencies are alike, lognormal with sigma 0.7)",
        "            orders            about 5,066 events in each cohort "
        "(if they come alike, each by itself)",
        "  phases    baseline 1m → faults 30m → recovery 1m, not after 2030-01-01 00:00 UTC",
        "  stops     at harm beyond a tolerance, at 95% confidence",
        "            if the cohorts differ in the baseline",
        "            if control gets worse than its own baseline by 3 tolerances within 1m",
        "            if the cohorts' numbers of users are not as their shares say",
        "            after 10000 faults",
        "            by hand, by a reload, by the kill switch, or with the lease",
        "",
        "never touched: /healthz, /livez, /readyz, /metrics",
        "at most 2% of users enrolled (limit 10%), at most 100 faults at a time",
    ]


@pytest.mark.parametrize(
    ("metrics", "warned"),
    [
        ([{"latency": {"quantile": 0.5, "rise": "20%"}}], ["inbound"]),
        ([{"rate": {"drop": "5%"}, "match": {"status": "2xx"}}], ["inbound"]),
        ([{"slow": {"over": "1s", "rise": "1pp"}}], []),
        ([{"latency": {"quantile": 0.5, "rise": "20%"}}, {"success_rate": {"drop": "1pp"}}], []),
        (
            [
                {"rate": {"drop": "5%"}, "match": {"status": "2xx", "path": "/a"}},
                {"success_rate": {"drop": "1pp"}, "match": {"path": "/a"}},
            ],
            [],
        ),
        (
            [
                {"rate": {"drop": "5%"}},
                {"success_rate": {"drop": "1pp"}, "match": {"path": "/b"}},
            ],
            ["inbound"],
        ),
    ],
)
def test_a_hypothesis_that_would_not_see_failures_is_warned_of(metrics, warned):
    named = [{"name": f"m{i}", "at": "inbound", **m} for i, m in enumerate(metrics)]
    found = [said for said in line("holds if", {"steady_state": named}) if "warning" in said]
    assert found == [
        f"warning: failures at {at} could go unseen; measure a success_rate or slow there, too"
        for at in warned
    ]


def test_an_experiment_without_extras_is_short():
    assert lines(EXPERIMENT) == [
        "slow: running, run 1",
        "  users     1% experiment, 2% control, by header x-user-id",
        "  fault     every request at payments (http://a:1, http://b:1)",
        "            latency 400ms; each of them, before the upstream",
        "  holds if  nothing is measured, so there will be no verdict",
        "  phases    baseline 1m → faults 90s → recovery 1m",
        "  stops     if the cohorts' numbers of users are not as their shares say",
        "            by hand, by a reload, by the kill switch, or with the lease",
        "",
        "never touched: /healthz, /livez, /readyz, /metrics",
        "at most 3% of users enrolled (limit 10%), at most 100 faults at a time",
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"latency": {"mean": "2s", "jitter": "1s"}}, "latency mean 2s, jitter 1s"),
        (
            {"latency": {"lognormal": {"median": "1s", "sigma": 0.5}, "max": "5s"}},
            "latency lognormal median 1s, sigma 0.5, max 5s",
        ),
        ({"latency": "0s"}, "latency 0s"),
        ({"error": 503}, "error 503"),
        (
            {"error": {"status": 429, "headers": {"Retry-After": "5"}, "body": "busy"}},
            "error 429, retry-after: 5, a body of 4 characters",
        ),
        ({"drop": "reset"}, "drop reset"),
        ({"drop": "hang"}, "drop hang for 1m"),
    ],
)
def test_a_fault_is_said_in_a_few_words(rule, said):
    assert line("fault", {"faults": [{"at": "inbound", **rule}]})[1] == (
        f"{said}; each of them, before the upstream"
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"dose": "20%"}, "20% of them, before the upstream"),
        (
            {"when": "after"},
            "each of them, after the upstream; methods that are not idempotent pass",
        ),
        ({"when": "after", "unsafe": True}, "each of them, after the upstream"),
        ({"when": "after", "match": {"method": "PUT"}}, "each of them, after the upstream"),
    ],
)
def test_dose_and_time_are_said(rule, said):
    rule = {"at": "inbound", "drop": "reset", **rule}
    assert line("fault", {"faults": [rule]})[1] == f"drop reset; {said}"


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({"method": ["GET", "PUT"], "path": "/a"}, "GET, PUT /a"),
        ({"prefix": "/a"}, "/a*"),
        ({"regex": "/a|/b"}, "~/a|/b"),
        ({"host": "shop.example", "headers": {"X-Beta": "1"}}, "host shop.example, x-beta: 1"),
    ],
)
def test_a_match_is_said(match, said):
    rule = {"at": "inbound", "drop": "reset", "match": match}
    assert line("fault", {"faults": [rule]})[0] == f"{said} at inbound (http://127.0.0.1:3000)"


def test_a_forward_proxy_is_said_and_what_it_cannot_reach():
    out = {"out": {"listen": "127.0.0.1:1", "mode": "forward"}}
    faults = [{"at": "out", "error": 503}, {"at": "out", "match": {"host": "a"}, "error": 503}]
    found = "\n".join(lines(EXPERIMENT | {"faults": faults}, listeners=out))
    assert "every request at out (a forward proxy)" in found
    assert "host a at out (a forward proxy)" in found
    assert found.count("https only to hosts that are named elsewhere") == 1


def test_a_tcp_listener_has_connections_and_their_turns():
    cache = {"listen": "127.0.0.1:1", "upstream": "tcp://127.0.0.1:2", "unit": "client_ip"}
    changes = {
        "faults": [{"at": "cache", "latency": "5ms", "when": "after"}],
        "steady_state": [{"name": "quick", "at": "cache", "slow": {"over": "1s", "rise": "1pp"}}],
    }
    listeners = {**SIDECAR["listeners"], "cache": cache}
    found = "\n".join(lines(EXPERIMENT | changes, listeners=listeners, engine="envoy"))
    assert "by client_ip at cache" in found
    assert "every connection at cache (tcp://127.0.0.1:2)" in found
    assert "after the upstream\n" in found
    assert "workers serve cache, and Envoy does not" in found
    assert "above control, every turn at cache" in found


def test_each_kind_of_metric_is_said():
    metrics = [
        {"name": "a", "at": "inbound", "success_rate": {"drop": "0.5pp"}},
        {"name": "bb", "at": "inbound", "latency": {"quantile": 0.999, "rise": "20%"}},
        {"name": "c", "at": "inbound", "slow": {"over": "300ms", "rise": "1pp"}},
        {"name": "d", "at": "inbound", "rate": {"drop": "5%"}, "match": {"status": [201, "3xx"]}},
        {"name": "e", "prometheus": {"query": "up{c=~'$cohort'}", "rise": "5%", "required": True}},
    ]
    assert line("holds if", {"steady_state": metrics}) == [
        "a   success rate at most 0.5pp below control, every request at inbound",
        "bb  p99.9 latency at most 20% above control, every request at inbound",
        "c   slower than 300ms at most 1pp above control, every request at inbound",
        "d   events at most 5% below control, answered 201, 3xx at inbound",
        "e   at most 5% above control, says Prometheus: up{c=~'$cohort'}; "
        "without data the run stops",
    ]


METRIC = {"name": "a", "at": "inbound", "success_rate": {"drop": "1pp"}}


def needs(rates, **metric):
    config = {"directory": ".", "sidecar": SIDECAR}
    experiment = EXPERIMENT | {"steady_state": [METRIC | metric]}
    found = summary(Config.from_wire(config | {"experiments": [experiment]}), rates)
    (line,) = (text for text in found if text.startswith("  needs"))
    return line.partition("in both)")[2]


def test_how_long_it_takes_is_said_at_the_rate_of_the_cohort_that_has_fewer():
    events = expected(Metric.model_validate(METRIC), Threshold.of(0.95, 1))
    rate = events / 60 / 0.01
    assert needs({"inbound": rate}) == f"; about 60s at inbound's present {rate:.3g} requests/s"
    assert needs({"inbound": rate / 2}).endswith(" requests/s: longer than its 90s")


def test_where_only_some_requests_match_it_takes_longer_than_can_be_said():
    assert needs({"inbound": 1e6}, match={"path": "/checkout"}).startswith("; at least 1s at ")


def test_without_a_sidecar_or_its_traffic_no_time_is_promised():
    assert needs({}) == ""
    assert needs({"payments": 10.0}) == ""
    assert needs({"inbound": 0.0}) == "; never, as nothing comes to inbound now"


def test_the_stops_are_those_that_the_experiment_has():
    rate = METRIC | {"success_rate": None, "rate": {"drop": "5%"}}
    guard = {"hours": "Mon-Fri 09:00-17:00 Europe/London"}
    found = line("stops", {"steady_state": [rate], "guard": guard})
    assert found == [
        "at harm beyond a tolerance, at 95% confidence",
        "if the cohorts differ in the baseline",
        "if the cohorts' numbers of users are not as their shares say",
        "outside Mon,Tue,Wed,Thu,Fri 09:00-17:00 Europe/London",
        "by hand, by a reload, by the kill switch, or with the lease",
    ]
    assert not any("baseline" in stop for stop in line("stops", {"baseline": "0s"}))


def test_only_what_is_running_counts_for_the_total():
    paused = EXPERIMENT | {"experiment": "other", "state": "paused"}
    assert lines(EXPERIMENT, paused)[-1].startswith("at most 3% of users enrolled")
    assert lines(paused)[-1] == "no experiment is running: no user is enrolled, no fault happens"


def test_nothing_protected_is_said():
    assert lines(protect=[])[0] == "never touched: nothing"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"dose": {"first": 3}}, "a dose that is counted"),
        ({"when": "after"}, "`when: after`"),
        ({"match": {"regex": "/a.*"}}, "a fault's `regex`"),
    ],
)
def test_it_says_who_takes_a_detour_on_envoy(said, expected):
    rule = {"at": "payments", "latency": "400ms", **said}
    found = "\n".join(lines(EXPERIMENT | {"faults": [rule]}, engine="envoy"))
    assert ("detour" in found) == (expected is not None)
    if expected:
        assert f"at payments go through workers behind Envoy, for {expected}" in found
    assert "detour" not in "\n".join(lines(EXPERIMENT | {"faults": [rule]}))


def test_envoy_is_asked_for_the_finest_tolerance_that_there_is():
    """Its lines are in microseconds, so the buckets of a sample bound it, as everywhere."""
    metric = {"name": "p99", "at": "inbound", "latency": {"quantile": 0.99, "rise": "9.1%"}}
    found = "\n".join(lines(EXPERIMENT | {"steady_state": [metric]}, engine="envoy"))
    assert "p99 latency at most 9.1% above control" in found
