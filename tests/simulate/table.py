"""The figures of a simulation: shares with their intervals, medians, targets; as text."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Any

from counterfault.proxy.analysis.comparison import LEAST_EVENTS
from tests.simulate.adversity import Adversity
from tests.simulate.chances import fixed, interval
from tests.simulate.met import Said, verdict
from tests.simulate.scenarios import ALPHA, Scenario

# An evaluation of a metric, in microseconds.
COST_TARGET = 100.0
RATIO_TARGET = 2.5
# What is wrong to say, and is to be said in 5 % of runs at most.
_WRONG = {
    "boundary": {"refuted": ALPHA, "held": ALPHA},
    "A/A": {"refuted": ALPHA, "differ": ALPHA},
}
# The groups of `scenarios`; all others are of adversarial traffic.
USUAL = ("boundary", "A/A", "harm", "no effect")

type Row = dict[str, Any]
type Figures = Mapping[str, Sequence[int]]
"""Of each run after how much something was said, by its name; 0: never."""


def wrong_of(cell: Scenario | Adversity) -> Mapping[str, float]:
    """Return what would be wrong to say, each with the share of runs in which it may be."""
    return cell.wrong if isinstance(cell, Adversity) else _WRONG.get(cell.group, {})


def said_of(cell: Scenario | Adversity, found: Figures) -> list[Said]:
    """Return how often what would be wrong was said."""
    return [
        Said(sum(n > 0 for n in found[name]), len(found[name]), limit)
        for name, limit in wrong_of(cell).items()
    ]


def row(cell: Scenario | Adversity, found: Figures) -> Row:
    """Return what the runs of a cell come to."""
    runs = len(next(iter(found.values())))
    shares = {name: _share(each) for name, each in found.items()}
    common: Row = {"group": cell.group, "name": cell.name, "runs": runs, "shares": shares}
    if wrong := dict(wrong_of(cell)):
        common["wrong"] = wrong
    if isinstance(cell, Adversity):
        return {**common, "seconds": cell.conditions.seconds, "met": met(common)}
    common |= {"crowd": cell.world.crowd.text, "most": cell.most}
    if cell.group == "harm":
        common |= _timed(cell, shares["refuted"])
    return {**common, "met": met(common)} if cell.group != "no effect" else common


def met(found: Row) -> str:
    """Return the verdict on a row: met, not met, or not enough runs; of old results, too."""
    wrong = found.get("wrong") or _WRONG.get(found["group"], {})
    shares = found["shares"]
    said = [Said(shares[name]["hits"], shares[name]["runs"], at) for name, at in wrong.items()]
    # Old results say only whether a target is reached; of false alarms the shares say more.
    in_time = found.get("in_time", found["group"] != "harm" or found.get("reached"))
    return verdict(found["runs"], said, bool(in_time))


def _share(when: Sequence[int]) -> Row:
    hits = sum(n > 0 for n in when)
    low, high = interval(hits, len(when))
    median = statistics.median([n or inf for n in when])
    said = [n for n in when if n > 0]
    return {
        "hits": hits,
        "runs": len(when),
        "share": round(hits / len(when), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "median": None if median == inf else median,
        "median_of_hits": statistics.median(said) if said else None,
    }


def _timed(scenario: Scenario, refuted: Row) -> Row:
    once, median, target = fixed(scenario.world), refuted["median"], scenario.at_most
    found: Row = {"target": target, "fixed": round(once), "ratio": None, "in_time": False}
    if median is None or target is None:
        return found
    # Below that many events nothing is said, so that there is nothing to compare with.
    ratio = round(median / once, 2) if once >= LEAST_EVENTS else None
    return {**found, "ratio": ratio, "in_time": median <= target and (ratio or 0) <= RATIO_TARGET}


def render(result: dict[str, Any]) -> str:
    """Return the whole result as text."""
    facts = {**result["machine"], **result["versions"], **result["settings"]}
    lines = [", ".join(f"{name} {value}" for name, value in facts.items())]
    rows: list[Row] = result["rows"]
    for group in USUAL:
        draw = _chance if group in _WRONG else _time
        of_group = [r for r in rows if r["group"] == group]
        if of_group:
            lines += ["", *_HEADS[group]]
            lines += [f"{_title(r)} {draw(r)}" for r in of_group + pooled(of_group)]
    hostile = [r for r in rows if r["group"] not in USUAL]
    for title, cells in groupby(hostile, key=lambda r: str(r["group"])):
        lines += ["", title, _HOSTILE_HEAD, *(_hostile(r) for r in cells)]
    if result["cost"]:
        lines += ["", f"cost of an evaluation, microseconds of CPU (target: {COST_TARGET:g})"]
    for name, took in result["cost"].items():
        figure = f"{took['median']:.0f} ({took['least']:.0f}–{took['most']:.0f})"
        late = "" if took["median"] <= COST_TARGET else "not met"
        lines.append(f"{name:<52} {figure:>13} {late}")
    lines += ["", _counted_up(rows)]
    return "\n".join(line.rstrip() for line in lines)


_HEADS = {
    "boundary": (
        "the effect is exactly the tolerance: share of runs (95 % interval); wrong if above 5 %",
        f"{'':<52} {'refuted':>20} {'held':>20} {'… at the end':>20} {'z-test':>8} {'threshold':>9}"
        f" {'runs':>5}",
    ),
    "A/A": (
        "no effect at all: share of runs; `differ` and Mann–Whitney test for any difference",
        f"{'':<52} {'refuted':>20} {'differ':>20} {'z-test':>8} {'threshold':>9} {'M–W':>8}"
        f" {'runs':>5}",
    ),
    "harm": (
        "harm: requests per cohort until refuted (median), and until others alarm",
        f"{'':<52} {'ours':>7} {'target':>7} {'one look':>8} {'ratio':>6}"
        f" {'z-test':>8} {'threshold':>9} {'M–W':>8} {'runs':>5}",
    ),
    "no effect": (
        "no effect: requests per cohort until within (median)",
        f"{'':<52} {'ours':>7}",
    ),
}
_HOSTILE_HEAD = (
    f"{'':<54} {'refuted':>20} {'held at some look':>20} {'held at the end':>20} {'ended':>20}"
    f" {'refuted after':>13} {'held after':>10} {'runs':>5}"
)


def pooled(rows: list[Row]) -> list[Row]:
    """Return the rows of all kinds of metrics as one, for each crowd; not for what is timed."""
    crowds = dict.fromkeys(r["crowd"] for r in rows if r["group"] in _WRONG)
    return [_sum([r for r in rows if r["crowd"] == crowd], crowd) for crowd in crowds]


def _sum(rows: list[Row], crowd: str) -> Row:
    names = set.intersection(*(set(r["shares"]) for r in rows))
    shares = {name: added([r["shares"][name] for r in rows]) for name in sorted(names)}
    runs = sum(r["runs"] for r in rows)
    found = {**rows[0], "name": "all of them", "crowd": crowd, "runs": runs, "shares": shares}
    return {**found, "met": met(found)}


def added(shares: Sequence[Row]) -> Row:
    """Return the share of the runs of several cells together."""
    hits, runs = (sum(share[name] for share in shares) for name in ("hits", "runs"))
    low, high = interval(hits, runs)
    return {"hits": hits, "runs": runs, "share": hits / runs, "low": low, "high": high}


def _title(r: Row) -> str:
    crowd = "" if r["group"] in ("harm", "no effect") else f"{r['crowd']}"
    return f"{r['name']:<25} {crowd:<26}" if crowd else f"{r['name']:<52}"


def _chance(r: Row) -> str:
    shares = r["shares"]
    boundary = r["group"] == "boundary"
    own = ("refuted", "held", "held_at_end") if boundary else ("refuted", "differ")
    others = ("z_test", "threshold") + (() if boundary else ("mann_whitney",))
    told = " ".join(f"{percent(shares[name]) if name in shares else '':>20}" for name in own)
    beside = " ".join(f"{100 * shares[name]['share']:>7.0f}%" for name in others)
    return f"{told} {beside} {r['runs']:>5} {r['met']}"


def percent(share: Row) -> str:
    """Return a share with its interval, as in 1.0% (0.0–5.4)."""
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
    return f"{ours:>7} {target:>7} {once:>8} {times:>6} {others} {r['runs']:>5} {r['met']}"


def _hostile(r: Row) -> str:
    shares = r["shares"]
    names = ("refuted", "held", "held_at_end", "ended")
    # What would be wrong to say is marked.
    said = " ".join(f"{'*' * (n in r['wrong']) + percent(shares[n]):>20}" for n in names)
    times = [shares[name]["median_of_hits"] for name in ("refuted", "held")]
    after = [f"{time:.0f} s" if time is not None else "–" for time in times]
    return f"{r['name']:<54} {said} {after[0]:>13} {after[1]:>10} {r['runs']:>5} {r['met']}"


def _counted_up(rows: list[Row]) -> str:
    """How many cells are met."""
    said = [r["met"] for r in rows if "met" in r]
    counts = ", ".join(f"{said.count(each)} {each}" for each in dict.fromkeys(sorted(said)))
    return f"{len(said)} cells: {counts} (* marks what would be wrong to say)"


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"
