"""The figures of a simulation: shares with their intervals, medians, targets; as text."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from typing import Any

from counterfault.proxy.analysis.comparison import LEAST_EVENTS
from tests.simulate.chances import at_least, fixed, interval
from tests.simulate.outcome import Outcome
from tests.simulate.scenarios import ALPHA, Scenario

# An evaluation of a metric, in microseconds.
COST_TARGET = 100.0
RATIO_TARGET = 2.5
SAID = ("refuted", "held", "differ", "mann_whitney", "z_test", "threshold")
# What is wrong to say, and is to be said in 5 % of runs at most.
_WRONG = {"boundary": ("refuted", "held"), "A/A": ("refuted", "differ")}
# A simulated share that would be so unlikely under the target misses it; else it is chance.
_UNLIKELY = 0.01

type Row = dict[str, Any]


def row(scenario: Scenario, outcomes: Sequence[Outcome]) -> Row:
    """What the runs of a scenario come to."""
    found: Row = {
        "group": scenario.group,
        "name": scenario.name,
        "crowd": scenario.world.crowd.text,
        "runs": len(outcomes),
        "most": scenario.most,
        "shares": {name: _share([asdict(o)[name] for o in outcomes]) for name in SAID},
    }
    if scenario.group in _WRONG:
        checked = [found["shares"][name] for name in _WRONG[scenario.group]]
        return {**found, "target": ALPHA, "reached": all(map(_sound, checked))}
    if scenario.group == "harm":
        return {**found, **_timed(scenario, found["shares"]["refuted"])}
    return found


def _share(when: list[int]) -> Row:
    hits = sum(n > 0 for n in when)
    low, high = interval(hits, len(when))
    median = statistics.median([n or inf for n in when])
    return {
        "hits": hits,
        "runs": len(when),
        "share": round(hits / len(when), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "median": None if median == inf else median,
    }


def _sound(share: Row) -> bool:
    return at_least(share["hits"], share["runs"], ALPHA) > _UNLIKELY


def _timed(scenario: Scenario, refuted: Row) -> Row:
    once, median, target = fixed(scenario.world), refuted["median"], scenario.at_most
    found: Row = {"target": target, "fixed": round(once), "ratio": None, "reached": False}
    if median is None or target is None:
        return found
    # Below that many events nothing is said, so that there is nothing to compare with.
    ratio = round(median / once, 2) if once >= LEAST_EVENTS else None
    return {**found, "ratio": ratio, "reached": median <= target and (ratio or 0) <= RATIO_TARGET}


def render(result: dict[str, Any]) -> str:
    """The whole result as text."""
    facts = {**result["machine"], **result["versions"], **result["settings"]}
    lines = [", ".join(f"{name} {value}" for name, value in facts.items())]
    rows: list[Row] = result["rows"]
    for group, draw in (
        ("boundary", _chance),
        ("A/A", _chance),
        ("harm", _time),
        ("no effect", _time),
    ):
        of_group = [r for r in rows if r["group"] == group]
        if of_group:
            lines += ["", *_HEADS[group]]
            lines += [f"{_title(r)} {draw(r)}" for r in of_group + _pooled(of_group)]
    lines += ["", f"cost of an evaluation, microseconds of CPU (target: at most {COST_TARGET:g})"]
    for name, took in result["cost"].items():
        figure = f"{took['median']:.0f} ({took['least']:.0f}–{took['most']:.0f})"
        lines.append(f"{name:<52} {figure:>13} {'' if took['median'] <= COST_TARGET else 'MISSED'}")
    return "\n".join(line.rstrip() for line in lines)


_HEADS = {
    "boundary": (
        "the effect is exactly the tolerance: share of runs (95 % interval); wrong if above 5 %",
        f"{'':<52} {'refuted':>20} {'held':>20} {'z-test':>8} {'threshold':>9}",
    ),
    "A/A": (
        "no effect at all: share of runs; `differ` and Mann–Whitney test for any difference",
        f"{'':<52} {'refuted':>20} {'differ':>20} {'z-test':>8} {'threshold':>9} {'M–W':>8}",
    ),
    "harm": (
        "harm: requests per cohort until refuted (median), and until others alarm",
        f"{'':<52} {'ours':>7} {'target':>7} {'one look':>8} {'ratio':>6}"
        f" {'z-test':>8} {'threshold':>9} {'M–W':>8}",
    ),
    "no effect": (
        "no effect: requests per cohort until within (median)",
        f"{'':<52} {'ours':>7}",
    ),
}


def _pooled(rows: list[Row]) -> list[Row]:
    """The rows of all kinds of metrics as one, for each crowd; not for what is timed."""
    crowds = dict.fromkeys(r["crowd"] for r in rows if r["group"] in ("boundary", "A/A"))
    return [_sum([r for r in rows if r["crowd"] == crowd], crowd) for crowd in crowds]


def _sum(rows: list[Row], crowd: str) -> Row:
    shares = {name: _counted([r["shares"][name] for r in rows]) for name in SAID}
    reached = all(_sound(shares[name]) for name in _WRONG[rows[0]["group"]])
    return {**rows[0], "name": "all of them", "crowd": crowd, "shares": shares, "reached": reached}


def _counted(shares: list[Row]) -> Row:
    hits, runs = (sum(share[name] for share in shares) for name in ("hits", "runs"))
    low, high = interval(hits, runs)
    return {"hits": hits, "runs": runs, "share": hits / runs, "low": low, "high": high}


def _title(r: Row) -> str:
    crowd = "" if r["group"] in ("harm", "no effect") else f"{r['crowd']}"
    return f"{r['name']:<25} {crowd:<26}" if crowd else f"{r['name']:<52}"


def _chance(r: Row) -> str:
    shares = r["shares"]
    own = _WRONG[r["group"]]
    others = ("z_test", "threshold") + (() if r["group"] == "boundary" else ("mann_whitney",))
    told = " ".join(f"{_percent(shares[name]):>20}" for name in own)
    beside = " ".join(f"{100 * shares[name]['share']:>7.0f}%" for name in others)
    return f"{told} {beside} {_said(r)}"


def _percent(share: Row) -> str:
    return f"{100 * share['share']:.1f}% ({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _time(r: Row) -> str:
    shares = r["shares"]
    if r["group"] == "no effect":
        return f"{_number(shares['held']['median']):>7}"
    others = " ".join(
        f"{_number(shares[name]['median']):>8}" for name in ("z_test", "threshold", "mann_whitney")
    )
    ours, ratio = _number(shares["refuted"]["median"]), r["ratio"]
    times = "–" if ratio is None else f"{ratio:.1f}"
    target, once = _number(r["target"]), _number(r["fixed"])
    return f"{ours:>7} {target:>7} {once:>8} {times:>6} {others} {_said(r)}"


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def _said(r: Row) -> str:
    return "" if r["reached"] else "MISSED"
