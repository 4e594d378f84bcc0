"""A configuration is good as a whole, or every problem is named with its place."""

import json
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.faults.latency import Latency
from counterfault.proxy.faults.registry import KNOWN

FAULTS = ", ".join(KNOWN)
SHIPPED = Path(__file__).parents[3] / "config"
SIDECAR = """\
service: shop
listeners:
  inbound: {listen: "127.0.0.1:8080", upstream: "http://127.0.0.1:3000"}
  payments: {listen: "127.0.0.1:9101", upstream: "http://127.0.0.1:3001"}
  cache: {listen: "127.0.0.1:6380", upstream: "tcp://127.0.0.1:6379"}
"""
SERVER = 'prometheus: {url: "http://prometheus:9090"}\n'
SLOW = """\
experiment: slow
state: running
duration: 30m
cohorts: {experiment: 1%, control: 1%}
faults:
  - at: payments
    latency: {p50: 400ms, p99: 2s}
steady_state:
  - name: success
    at: inbound
    success_rate: {drop: 1pp}
"""


def write(directory, sidecar=SIDECAR, **experiments):
    (directory / "experiments").mkdir(exist_ok=True)
    (directory / "sidecar.yaml").write_text(sidecar)
    for name, text in experiments.items():
        (directory / "experiments" / f"{name}.yaml").write_text(text)


def problems(directory):
    with pytest.raises(ConfigError) as raised:
        load(directory)
    return str(raised.value).splitlines()


def swapped(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


EXPERIMENT_PROBLEMS = {
    "unknown key": (
        ("duration: 30m", "duration: 30m\ndurration: 1m"),
        "4:1: unknown key 'durration'; known: baseline, cohorts, duration, experiment, faults, "
        "guard, hypothesis, not_after, recovery, run, state, steady_state; "
        "did you mean 'duration'?",
    ),
    "unknown key inside": (
        ("p99: 2s", "p66: 2s"),
        "7:27: faults.0.latency: unknown key 'p66'; known: fixed, jitter, lognormal, max, mean, "
        "p50, p75, p90, p95, p99, p999, recorded",
    ),
    "unknown key of a metric": (
        ("drop: 1pp", "drop: 1pp, of: all"),
        "11:31: steady_state.0.success_rate: unknown key 'of'; known: drop",
    ),
    "unknown fault": (
        ("latency:", "latencey:"),
        f"7:5: faults.0: unknown fault 'latencey'; known: {FAULTS}; did you mean 'latency'?",
    ),
    "unknown key of a fault rule": (
        ("at: payments", "at: payments\n    doze: 5%"),
        f"7:5: faults.0: unknown fault 'doze'; known: {FAULTS}; did you mean 'dose'?",
    ),
    "duplicate key": (
        ("duration: 30m", "duration: 30m\nstate: paused"),
        "4:1: duplicate key 'state', first at line 2",
    ),
    "missing key": (("duration: 30m\n", ""), "1:1: missing key 'duration'"),
    "missing key inside": (
        (", control: 1%", ""),
        "4:10: cohorts: missing key 'control'",
    ),
    "octal": (
        ("duration", "run: 010\nduration"),
        "3:6: run: must be a whole number, not '010'",
    ),
    "fraction": (("duration", "run: 1.5\nduration"), "3:6: run: must be a whole number, not 1.5"),
    "number for text": (
        ("at: payments", "at: 5"),
        "6:9: faults.0.at: must be text, not 5",
    ),
    "nothing for text": (("at: payments", "at:"), "6:8: faults.0.at: must be text, not null"),
    "text for a flag": (
        ("at: payments", "at: payments\n    unsafe: yes"),
        "7:13: faults.0.unsafe: must be true or false, not 'yes'",
    ),
    "list for a mapping": (
        ("{experiment: 1%, control: 1%}", "[1%, 1%]"),
        "4:10: cohorts: must be a mapping, not a list",
    ),
    "text for a list": (
        ("faults:\n  - at: payments\n    latency: {p50: 400ms, p99: 2s}", "faults: none"),
        "5:9: faults: must be a list, not 'none'",
    ),
    "text for a rule": (
        ("steady_state:\n", "  - slow\nsteady_state:\n"),
        "8:5: faults.1: must be a mapping, not 'slow'",
    ),
    "empty list": (
        ("faults:\n  - at: payments\n    latency: {p50: 400ms, p99: 2s}", "faults: []"),
        "5:9: faults: must have at least 1 item",
    ),
    "not the word": (
        ("state: running", "state: on"),
        "2:8: state: must be one of paused, running, not 'on'",
    ),
    "below a bound": (("duration", "run: 0\nduration"), "3:6: run: must be at least 1, not 0"),
    "above a bound": (
        ("duration: 30m", "duration: 31d"),
        "3:11: duration: must be at most 30d, not 31d",
    ),
    "at an open bound": (
        ("success_rate: {drop: 1pp}", "latency: {quantile: 1, rise: 20%}"),
        "11:25: steady_state.0.latency.quantile: must be below 1, not 1",
    ),
    "too long": (
        ("duration", f"hypothesis: {'x' * 501}\nduration"),
        "3:13: hypothesis: must be at most 500 characters long",
    ),
    "share out of range": (
        ("experiment: 1%", "experiment: 101%"),
        "4:23: cohorts.experiment: must be at most 100%, not 101%",
    ),
    "more than half": (
        ("experiment: 1%", "experiment: 51%"),
        "4:23: cohorts.experiment: must be at most 50%, not 51%",
    ),
    "share without its sign": (
        ("experiment: 1%", "experiment: 0.01"),
        "4:23: cohorts.experiment: must be a share such as 1% or 0.05%, not 0.01",
    ),
    "p99 below p50": (
        ("p99: 2s", "p99: 200ms"),
        "7:32: faults.0.latency.p99: must be at least p50 (400ms)",
    ),
    "shorthand": (
        ("{p50: 400ms, p99: 2s}", "2 seconds"),
        "7:14: faults.0.latency: must be a duration such as 250ms, 3s, 30m or 1h, not '2 seconds'",
    ),
    "shorthand past a bound": (
        ("{p50: 400ms, p99: 2s}", "2h"),
        "7:14: faults.0.latency: must be at most 1h, not 2h",
    ),
    "shorthand not the word": (
        ("latency: {p50: 400ms, p99: 2s}", "drop: rst"),
        "7:11: faults.0.drop: must be one of close, hang, reset, not 'rst'",
    ),
    "no fault": (
        ("\n    latency: {p50: 400ms, p99: 2s}", ""),
        f"6:5: faults.0: must have one fault of {FAULTS}, not none",
    ),
    "two faults": (
        ("at: payments", "at: payments\n    drop: reset"),
        f"6:5: faults.0: must have one fault of {FAULTS}, not drop and latency",
    ),
    "bad key of a mapping": (
        ("at: payments", "at: payments\n    match: {headers: {a b: c}}"),
        "7:23: faults.0.match.headers.a b: must be a header name, not 'a b'",
    ),
    "long value": (
        ("duration: 30m", f"duration: {'x' * 100}"),
        f"3:11: duration: must be a duration such as 250ms, 3s, 30m or 1h, not '{'x' * 38}…",
    ),
    "unknown listener": (
        ("at: payments", "at: paymentz"),
        "6:9: faults.0.at: unknown listener 'paymentz'; known: cache, inbound, payments; "
        "did you mean 'payments'?",
    ),
    "unknown listener of a metric": (
        ("at: inbound", "at: nowhere"),
        "10:9: steady_state.0.at: unknown listener 'nowhere'; known: cache, inbound, payments",
    ),
    "alias": (
        ("{experiment: 1%, control: 1%}", "*both"),
        "4:10: cohorts: aliases (*both) are not allowed",
    ),
    "past the cap": (
        ("experiment: 1%", "experiment: 9.5%"),
        "4:1: cohorts sum to 10.5%; limits.enrolled allows 10%",
    ),
}


INSIDE = SLOW[SLOW.index("    at: inbound") :]
OUTSIDE = """\
    prometheus: {query: 'o{c="$cohort"}', drop: 5%}
"""
OUTSIDE_PROBLEMS = {
    "both cohorts at once": (
        ("$cohort", "$cohorts"),
        "10:25: steady_state.0.prometheus.query: must name the cohort by a matcher such as "
        '{cohort="$cohort"}',
    ),
    "points": (
        ("5%", "5pp"),
        "10:49: steady_state.0.prometheus.drop: must be relative to control, such as 5%, not 5pp",
    ),
    "both sides": (
        ("5%", "5%, rise: 5%"),
        "10:17: steady_state.0.prometheus: must have one of drop, rise, not both",
    ),
    "neither side": (
        (", drop: 5%", ""),
        "10:17: steady_state.0.prometheus: must have one of drop, rise, not none",
    ),
    "unknown key": (
        ("drop: 5%", "dropp: 5%"),
        "10:43: steady_state.0.prometheus: unknown key 'dropp'; known: drop, query, required, "
        "rise; did you mean 'drop'?",
    ),
    "a listener": (
        ("    prom", "    at: inbound\n    prom"),
        "9:5: steady_state.0: prometheus takes no `at`: its query says what is counted",
    ),
    "a match": (
        ("    prom", "    match: {path: /a}\n    prom"),
        "9:5: steady_state.0: prometheus takes no `match`: its query says what is counted",
    ),
}


@pytest.mark.parametrize(("edit", "said"), OUTSIDE_PROBLEMS.values(), ids=OUTSIDE_PROBLEMS)
def test_a_problem_of_an_outside_metric_says_what_and_where(tmp_path, edit, said):
    write(tmp_path, sidecar=SIDECAR + SERVER, slow=swapped(SLOW, INSIDE, swapped(OUTSIDE, *edit)))
    assert problems(tmp_path) == [f"experiments/slow.yaml:{said}"]


@pytest.mark.parametrize("server", ["", "prometheus: null\n"])
def test_an_outside_metric_needs_a_server(tmp_path, server):
    write(tmp_path, sidecar=SIDECAR + server, slow=swapped(SLOW, INSIDE, OUTSIDE))
    assert problems(tmp_path) == [
        "experiments/slow.yaml:10:17: steady_state.0.prometheus: sidecar.yaml has no "
        "`prometheus: {url: …}` that could be asked"
    ]


def test_an_outside_metric_is_at_no_listener(tmp_path):
    write(tmp_path, sidecar=SIDECAR + SERVER, slow=swapped(SLOW, INSIDE, OUTSIDE))
    (metric,) = load(tmp_path).experiments[0].steady_state
    assert (metric.at, metric.lower_is_worse, str(metric.tolerance)) == ("", True, "5%")


@pytest.mark.parametrize(("edit", "said"), EXPERIMENT_PROBLEMS.values(), ids=EXPERIMENT_PROBLEMS)
def test_a_problem_of_an_experiment_says_what_and_where(tmp_path, edit, said):
    write(tmp_path, slow=swapped(SLOW, *edit))
    assert problems(tmp_path) == [f"experiments/slow.yaml:{said}"]


TCP_PROBLEMS = {
    "a fault of requests": (
        (
            "at: payments\n    latency: {p50: 400ms, p99: 2s}",
            "at: cache\n    match: {method: GET}\n    dose: {first: 3}\n    error: 503",
        ),
        ("at: inbound", "at: cache"),
        [
            "7:5: faults.0.match: a tcp listener has connections, not requests; "
            "there is nothing to match",
            "8:5: faults.0.dose: at a tcp listener it must be a share such as 50%",
            "9:5: faults.0.error: a tcp listener has connections, not requests; "
            "it takes bandwidth, drop, latency, truncate",
        ],
    ),
    "a share of no length": (
        (
            "at: payments\n    latency: {p50: 400ms, p99: 2s}",
            "at: cache\n    truncate: {share: 50%}",
        ),
        ("at: inbound", "at: cache"),
        [
            "7:16: faults.0.truncate.share: a connection has no length to have a share of; "
            "say `after`"
        ],
    ),
    "a metric of requests": (
        ("at: payments", "at: cache"),
        ("at: inbound", "at: cache\n    match: {path: /a}"),
        [
            "11:5: steady_state.0.match: a tcp listener has connections, not requests; "
            "they cannot be matched"
        ],
    ),
    "users compared for faults of connections": (
        ("at: payments", "at: cache"),
        ("name: success", "name: success"),
        ["10:9: steady_state.0.at: compares users, but the faults at cache are for connections"],
    ),
    "connections compared for faults of users": (
        ("at: inbound", "at: cache"),
        ("name: success", "name: success"),
        ["10:9: steady_state.0.at: compares connections, but the faults at payments are for users"],
    ),
}


@pytest.mark.parametrize(("first", "second", "said"), TCP_PROBLEMS.values(), ids=TCP_PROBLEMS)
def test_what_a_tcp_listener_cannot_have_is_told_with_its_place(tmp_path, first, second, said):
    write(tmp_path, slow=swapped(swapped(SLOW, *first), *second))
    assert problems(tmp_path) == [f"experiments/slow.yaml:{line}" for line in said]


SIDECAR_PROBLEMS = {
    "unknown key": (
        ("service: shop", "service: shop\nworker: 2"),
        "2:1: unknown key 'worker'; known: admin, engine, envoy, forward_ca, limits, listeners, "
        "prometheus, protect, service, state_dir, trust, unit, workers; did you mean 'workers'?",
    ),
    "unknown key of a listener": (
        ("  cache: {", "  upstream: {tsl: {}, "),
        "5:14: listeners.upstream: unknown key 'tsl'; known: ca, listen, mode, tls, trust, "
        "unit, upstream; did you mean 'tls'?",
    ),
    "bad listener name": (
        ("  cache:", "  Cache:"),
        "5:3: listeners.Cache: must be 1 to 40 of a-z, 0-9 and -, not 'Cache'",
    ),
    "no listeners": (
        (SIDECAR[SIDECAR.index("listeners") :], "listeners: {}"),
        "2:12: listeners: must have at least 1 item",
    ),
    "duration below a bound": (
        ("service: shop", "service: shop\nlimits: {lease: 100ms}"),
        "2:17: limits.lease: must be at least 500ms, not 100ms",
    ),
    "only one word": (
        ("service: shop", "service: shop\nengine: nginx"),
        "2:9: engine: must be one of envoy, mitmproxy, not 'nginx'",
    ),
    "upstream": (
        ('"http://127.0.0.1:3001"', "[127.0.0.1:3001]"),
        "4:51: listeners.payments.upstream.0: must be http://HOST[:PORT], https://HOST[:PORT] or "
        "tcp://HOST:PORT, not '127.0.0.1:3001'",
    ),
    "upstream shorthand": (
        ('"http://127.0.0.1:3001"', "5"),
        "4:50: listeners.payments.upstream: must be text, not 5",
    ),
    "network": (
        ("service: shop", "service: shop\ntrust: [10.0.0.1/8]"),
        "2:9: trust.0: must be a network such as 10.0.0.0/8 (host bits zero), not '10.0.0.1/8'",
    ),
    "unit source": (
        ("service: shop", "service: shop\nunit: [{header: a, cookie: b}]"),
        "2:8: unit.0: must have one of baggage, header, cookie",
    ),
    "no upstream": (
        (', upstream: "http://127.0.0.1:3001"', ""),
        "4:13: listeners.payments: missing key 'upstream'",
    ),
    "an upstream of a forward proxy": (
        ('"127.0.0.1:9101",', '"127.0.0.1:9101", mode: forward,'),
        "4:13: listeners.payments: mode forward has no upstream: each request names its own",
    ),
    "tls of a forward proxy": (
        (
            ', upstream: "http://127.0.0.1:3001"',
            ", mode: forward, tls: {cert: experiments, key: experiments}",
        ),
        "4:13: listeners.payments: mode forward has no tls: applications speak plainly to "
        "their proxy",
    ),
    "mode": (
        ('"127.0.0.1:9101",', '"127.0.0.1:9101", mode: socks,'),
        "4:46: listeners.payments.mode: must be one of forward, reverse, not 'socks'",
    ),
    "authority": (
        ("service: shop", "service: shop\nforward_ca: experiments"),
        "2:13: forward_ca: cannot read experiments: is a directory",
    ),
    "what is no authority": (
        ("service: shop", "service: shop\nforward_ca: sidecar.yaml"),
        "2:13: forward_ca: cannot use sidecar.yaml: must have a private key without a password",
    ),
    "certificate": (
        ('"127.0.0.1:8080",', '"127.0.0.1:8080", ca: experiments,'),
        "3:43: listeners.inbound.ca: cannot read experiments: is a directory",
    ),
    "a password in a URL": (
        ("service: shop", "service: shop\nprometheus: {url: 'http://me:s3cret@p'}"),
        "2:19: prometheus.url: must hold no user and password; use token_file",
    ),
    "a URL with a query": (
        ("service: shop", "service: shop\nprometheus: {url: 'http://p?a'}"),
        "2:19: prometheus.url: must be http(s)://HOST[:PORT][/PATH], not 'http://p?a'",
    ),
    "no token": (
        ("service: shop", "service: shop\nprometheus: {url: 'http://p', token_file: t}"),
        "2:43: prometheus.token_file: cannot read t: no such file or directory",
    ),
    "empty": ((SIDECAR, ""), "1:1: must not be empty"),
    "a list": ((SIDECAR, "[]"), "1:1: must be a mapping, not a list"),
}


@pytest.mark.parametrize(("edit", "said"), SIDECAR_PROBLEMS.values(), ids=SIDECAR_PROBLEMS)
def test_a_problem_of_the_sidecar_says_what_and_where(tmp_path, edit, said):
    write(tmp_path, sidecar=swapped(SIDECAR, *edit))
    assert problems(tmp_path) == [f"sidecar.yaml:{said}"]


def test_all_problems_of_all_files_come_at_once_in_their_order(tmp_path):
    bad = swapped(SLOW, "duration: 30m", "state: paused\nrun: x")
    bad = swapped(swapped(bad, "at: payments", "at: paymentz"), "p99: 2s", "p99: 1ms")
    write(tmp_path, sidecar=SIDECAR + "workers: 0\n", b="- x", a=bad)
    assert problems(tmp_path) == [
        "experiments/a.yaml:1:1: missing key 'duration'",
        "experiments/a.yaml:3:1: duplicate key 'state', first at line 2",
        "experiments/a.yaml:4:6: run: must be a whole number, not 'x'",
        "experiments/a.yaml:7:9: faults.0.at: unknown listener 'paymentz'; "
        "known: cache, inbound, payments; did you mean 'payments'?",
        "experiments/a.yaml:8:32: faults.0.latency.p99: must be at least p50 (400ms)",
        "experiments/b.yaml:1:1: must be a mapping, not a list",
        "sidecar.yaml:6:10: workers: must be at least 1, not 0",
    ]


def test_a_bad_item_is_not_told_as_a_list_too_short(tmp_path):
    write(tmp_path, sidecar=SIDECAR + "unit: [x]\n")
    assert problems(tmp_path) == ["sidecar.yaml:6:8: unit.0: must be a mapping, not 'x'"]


def test_two_experiments_of_one_name_are_told_apart_by_file(tmp_path):
    write(tmp_path, a=swapped(SLOW, "1%, control: 1%", "1%, control: 2%"), b=SLOW)
    assert problems(tmp_path) == [
        "experiments/b.yaml:1:13: experiment: already used in experiments/a.yaml"
    ]


def test_shares_past_the_cap_are_an_error_of_the_experiment_that_goes_past(tmp_path):
    five = swapped(SLOW, "experiment: 1%, control: 1%", "experiment: 2%, control: 2%")
    named = [five.replace("experiment: slow", f"experiment: {name}") for name in "abcd"]
    paused = swapped(named[1], "running", "paused")
    write(tmp_path, a=named[0], b=paused, c=named[2], d=named[3])
    assert problems(tmp_path) == [
        "experiments/d.yaml:4:1: cohorts sum to 12% with a (4%), c (4%); limits.enrolled allows 10%"
    ]


def test_shares_that_just_fill_the_cap_are_fine(tmp_path):
    text = swapped(SLOW, "experiment: 1%, control: 1%", "experiment: 1.1%, control: 2.2%")
    sidecar = SIDECAR + "limits: {enrolled: 9.9%}\n"
    names = {name: text.replace("experiment: slow", f"experiment: {name}") for name in "abc"}
    write(tmp_path, sidecar, **names)
    assert len(load(tmp_path).experiments) == 3


def test_certificates_are_looked_for_in_the_directory(tmp_path):
    sidecar = swapped(
        SIDECAR,
        'inbound: {listen: "127.0.0.1:8080"',
        'inbound: {tls: {cert: tls/a.crt, key: tls/a.key}, listen: "127.0.0.1:8080"',
    )
    write(tmp_path, sidecar)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "a.crt").touch()
    missing = "listeners.inbound.tls.key: cannot read tls/a.key: no such file or directory"
    assert problems(tmp_path) == [f"sidecar.yaml:3:41: {missing}"]
    (tmp_path / "tls" / "a.key").touch()
    assert load(tmp_path).sidecar.listeners["inbound"].tls


def test_the_directory_must_be_there(tmp_path):
    there = tmp_path / "nowhere"
    assert problems(there) == [f"{there}: cannot be read: no such file or directory"]
    there.touch()
    assert problems(there) == [f"{there}: cannot be read: not a directory"]


def test_sidecar_yaml_must_be_there(tmp_path):
    assert problems(tmp_path) == ["sidecar.yaml: cannot be read: no such file or directory"]


def test_a_directory_a_pipe_or_a_dangling_link_is_no_experiment(tmp_path):
    write(tmp_path)
    os.mkfifo(tmp_path / "experiments" / "a.yaml")
    (tmp_path / "experiments" / "b.yaml").mkdir()
    (tmp_path / "experiments" / "c.yaml").symlink_to("nowhere")
    assert problems(tmp_path) == [
        "experiments/a.yaml: cannot be read: is not a regular file",
        "experiments/b.yaml: cannot be read: is a directory",
        "experiments/c.yaml: cannot be read: no such file or directory",
    ]


def test_experiments_must_be_a_directory(tmp_path):
    (tmp_path / "sidecar.yaml").write_text(SIDECAR)
    (tmp_path / "experiments").touch()
    assert problems(tmp_path) == ["experiments: cannot be read: not a directory"]


def test_experiments_may_be_empty_or_missing(tmp_path):
    (tmp_path / "sidecar.yaml").write_text(SIDECAR)
    assert load(tmp_path).experiments == ()
    (tmp_path / "experiments").mkdir()
    assert load(tmp_path).experiments == ()


def test_experiments_come_in_the_order_of_their_files(tmp_path):
    write(tmp_path, b=SLOW.replace(": slow", ": first"), c=SLOW.replace(": slow", ": second"))
    (tmp_path / "experiments" / "a.yml").write_text(SLOW.replace(": slow", ": zeroth"))
    assert [e.name for e in load(tmp_path).experiments] == ["zeroth", "first", "second"]


@pytest.mark.parametrize("name", [".a.yaml", ".a.yaml.swp", "a.yaml~", "#a.yaml#", "a.txt"])
def test_leftovers_of_editors_are_ignored(tmp_path, name):
    write(tmp_path)
    (tmp_path / "experiments" / name).write_text("not: [ours")
    assert load(tmp_path).experiments == ()


def test_a_config_map_is_followed_through_its_links(tmp_path):
    for mount, files in ((tmp_path, {"sidecar.yaml": SIDECAR}), (tmp_path / "experiments", {})):
        data = mount / "..2026_12_01"
        data.mkdir(parents=True)
        (mount / "..data").symlink_to(data.name)
        for name, text in (files or {"slow.yaml": SLOW}).items():
            (data / name).write_text(text)
            (mount / name).symlink_to(Path("..data", name))
    assert [e.name for e in load(tmp_path).experiments] == ["slow"]


def test_a_configuration_goes_over_the_wire(tmp_path):
    write(tmp_path, slow=SLOW)
    config = load(tmp_path)
    assert Config.from_wire(json.loads(json.dumps(config.wire()))) == config


def test_the_shipped_configuration_loads():
    config = load(SHIPPED)
    assert [experiment.name for experiment in config.experiments] == ["slow-payments"]


def test_the_shipped_examples_load(tmp_path):
    shutil.copy(SHIPPED / "sidecar.yaml", tmp_path)
    shutil.copytree(SHIPPED / "examples", tmp_path / "experiments")
    names = [path.stem.replace("_", "-") for path in sorted((SHIPPED / "examples").glob("*.yaml"))]
    experiments = load(tmp_path).experiments
    assert [experiment.name for experiment in experiments] == names
    assert all(experiment.not_after for experiment in experiments)
    assert {name.replace("_", "-") for name in KNOWN} <= set(names)


def test_thousands_of_problems_are_found_soon_and_told_in_part(tmp_path):
    listeners = "".join(f"  listen{i}: 1\n" for i in range(9_000))
    keys = "".join(f"listen{i}: 1\n" for i in range(900))
    write(tmp_path, sidecar=f"{keys}service: a\nlisteners:\n{listeners}")
    began = time.monotonic()
    told = problems(tmp_path)
    assert len(told) == 101
    assert told[-1] == "and 9800 more problems"
    assert time.monotonic() - began < 20


def _loads_or_says_why(directory, sidecar, experiment):
    (directory / "experiments").mkdir(exist_ok=True)
    (directory / "sidecar.yaml").write_bytes(sidecar)
    (directory / "experiments" / "a.yaml").write_bytes(experiment)
    with suppress(ConfigError):
        load(directory)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(sidecar=st.binary(), experiment=st.binary())
def test_no_bytes_raise_anything_else(scratch, sidecar, experiment):
    _loads_or_says_why(scratch, sidecar, experiment)


SCHEMAS = [path.read_text() for path in sorted((SHIPPED / "schema").iterdir())]
KEYS = st.sampled_from(re.findall(r'"(\w+)": \{', "".join(SCHEMAS)))
LEAVES = st.sampled_from(
    ["1%", "30m", "running", "a", "/a", "(a", "[[a]", "2xx", "tcp://a:1", "http://[", "1.2.3.4:5"]
) | (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=30,
)


@given(sidecar=TREES, experiment=TREES)
def test_no_structure_raises_anything_else(scratch, sidecar, experiment):
    _loads_or_says_why(scratch, json.dumps(sidecar).encode(), json.dumps(experiment).encode())


@given(data=st.data())
def test_no_damage_to_a_good_file_raises_anything_else(scratch, data):
    def damaged(text):
        at = data.draw(st.integers(0, len(text)))
        upto = data.draw(st.integers(at, min(len(text), at + 20)))
        put = data.draw(st.sampled_from(["", "x", "0", "[", "{", ": ", "\n", "- ", "'", "*", "-1"]))
        return (text[:at] + put + text[upto:]).encode()

    _loads_or_says_why(scratch, damaged(SIDECAR), damaged(SLOW))


RECORDED = SLOW.replace("{p50: 400ms, p99: 2s}", "{recorded: slow.csv}")


def test_a_file_that_a_fault_names_is_a_part_of_the_experiment(tmp_path):
    write(tmp_path, slow=RECORDED)
    file = tmp_path / "experiments" / "slow.csv"
    file.write_text("0.1\n0.3\n")
    before = load(tmp_path)
    fault = before.experiments[0].faults[0].fault
    assert isinstance(fault, Latency)
    assert fault.quantile(0.5) == pytest.approx(0.2)
    sent = json.loads(json.dumps(before.wire()))
    file.write_text("0.1\n0.5\n")
    assert Config.from_wire(sent) == before
    assert load(tmp_path).experiments[0].faults != before.experiments[0].faults


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read slow.csv: no such file or directory"),
        ("0.1\nsoon\n", "slow.csv:2: must be a duration of 0 to 3600 seconds such as 0.25 or"),
    ],
)
def test_what_is_wrong_with_such_a_file_is_said_at_both_places(tmp_path, content, said):
    write(tmp_path, slow=RECORDED)
    if content is not None:
        (tmp_path / "experiments" / "slow.csv").write_text(content)
    (told,) = problems(tmp_path)
    assert told.startswith(f"experiments/slow.yaml:7:25: faults.0.latency.recorded: {said}")
