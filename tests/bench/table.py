"""What the figures come to: ratios between setups of the same round, and how they spread."""

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.loads import LOADS, PACED
from tests.bench.setups import SETUPS, before, label

type Rows = list[dict[str, Any]]
"""One measurement each: its round, setup and load, and what was seen."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the sweeps, and their extremes."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def _inverse(ours: float, theirs: float) -> float:
    """How much more a request takes, as a ratio."""
    return theirs / ours


def _cost(ours: float, theirs: float) -> float:
    """How much more CPU a request costs, in percent."""
    return (theirs / ours - 1) * 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two setups under one load, and what their figures should come to."""

    text: str
    load: str
    ours: str
    theirs: str
    figure: Callable[[float, float], float]
    target: float | None = None
    most: bool = False
    """The target is an upper limit."""
    of: str = "per_cpu_second"

    def among(self, rows: Rows) -> list[float]:
        """The figure of each round that has both setups."""
        ours, theirs = (
            _by_round(rows, setup, self.load, self.of) for setup in (self.ours, self.theirs)
        )
        return [self.figure(ours[n], theirs[n]) for n in sorted(ours.keys() & theirs.keys())]


COMPARISONS = (
    Comparison("sidecar : stock, HTTP/1", "keep-alive", "one", "stock", _ratio, 3.5),
    Comparison("sidecar : stock, no keep-alive", "close", "one", "stock", _ratio),
    Comparison("sidecar : stock, HTTP/2", "http2", "one", "stock", _ratio),
    Comparison("bare engine : stock, HTTP/1", "keep-alive", "bare", "stock", _ratio),
    Comparison(
        "assignment and metrics cost, %", "keep-alive", "one", "bare", _cost, 10.0, most=True
    ),
    Comparison(
        "100 experiments cost more than 1, %",
        "keep-alive",
        "hundred",
        "one",
        _cost,
        25.0,
        most=True,
    ),
    Comparison("two workers : one", "keep-alive", "two", "one", _ratio, 0.9),
    Comparison(
        "engine: envoy : bare Envoy, requests/s",
        "keep-alive",
        "envoy",
        "bare-envoy",
        _ratio,
        0.9,
        of="per_second",
    ),
    Comparison(
        "engine: envoy : bare Envoy, CPU a request",
        "keep-alive",
        "envoy",
        "bare-envoy",
        _inverse,
        1.12,
        most=True,
    ),
    Comparison(
        "engine: envoy : bare Envoy, added at 200/s",
        "brisk",
        "envoy",
        "bare-envoy",
        _ratio,
        1.12,
        most=True,
        of="added_p50_ms",
    ),
    Comparison(
        "others' p99 with a detour : without",
        "brisk",
        "envoy-detour",
        "envoy-none",
        _ratio,
        1.2,
        most=True,
        of="p99_ms",
    ),
)
# A request may cost this much more than before, as a ratio: less is not seen on most machines.
_UNCHANGED = 1.03
_ADDED: tuple[tuple[str, str, str, float | None], ...] = (
    ("one", "slow", "added to the median at 100 a second, ms", 1.2),
    ("envoy", "brisk", "engine: envoy, … at 200 a second, ms", 0.3),
    ("bare-envoy", "brisk", "bare Envoy, … at 200 a second, ms", None),
)


def summary(rows: Rows) -> list[dict[str, Any]]:
    """Each comparison that the rows allow: median, extremes, target and whether it is reached."""
    found = []
    for comparison in COMPARISONS:
        values = comparison.among(rows)
        if values:
            found.append(_said(comparison.text, values, comparison.target, comparison.most))
    found += [each for name in SETUPS for load in LOADS for each in _against(rows, name, load)]
    for setup, load, text, most in _ADDED:
        added = [row["added_p50_ms"] for row in _of(rows, setup, load)]
        if added:
            found.append(_said(text, added, most, most=True))
    return found


def _against(rows: Rows, setup: str, load: str) -> list[dict[str, Any]]:
    """This checkout : the other one, by the CPU time or, where it is paced, the time of a request.

    The least times of all sweeps are compared too: others on the machine only ever add to them.
    """
    of, figure = ("p50_ms", _ratio) if load in PACED else ("per_cpu_second", _inverse)
    compared = Comparison("", load, setup, before(setup), figure, of=of)
    values = compared.among(rows)
    if not values:
        return []
    least = min if load in PACED else max
    best = [least(_by_round(rows, name, load, of).values()) for name in (setup, before(setup))]
    text = f"{setup}, {load}, now : before"
    return [
        _said(text, values, _UNCHANGED, most=True),
        _said(f"{text}, the least", [figure(*best)], _UNCHANGED, most=True),
    ]


def _said(text: str, values: list[float], target: float | None, most: bool) -> dict[str, Any]:
    figure = spread(values)
    said = {"text": text, "median": figure.median, "min": figure.low, "max": figure.high}
    if target is None:
        return said
    within = operator.le if most else operator.ge
    bound = f"{'<=' if most else '>='} {target:g}"
    return {**said, "target": bound, "reached": within(figure.median, target)}


def render(result: dict[str, Any]) -> str:
    """The whole result as text."""
    rows: Rows = result["rounds"]
    facts = {**result["machine"], **result["versions"]}
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for load, (text, _) in LOADS.items():
        names = [each for name in SETUPS for each in (name, before(name))]
        measured = [setup for setup in names if _of(rows, setup, load)]
        if measured:
            unit = "milliseconds" if load in PACED else "requests per CPU-second"
            lines += [f"{text}: {unit}, median of the sweeps (min to max)"]
            lines += [f"  {label(setup):<44} {_line(rows, setup, load)}" for setup in measured]
            lines += [""]
    for said in result["summary"]:
        figure = Spread(said["median"], said["min"], said["max"])
        verdict = {True: "reached", False: "MISSED", None: ""}[said.get("reached")]
        line = f"{said['text']:<42} {figure:.2f}"
        lines.append(f"{line:<72} {said.get('target', ''):<8} {verdict}".rstrip())
    return "\n".join(lines)


def _line(rows: Rows, setup: str, load: str) -> str:
    found = _of(rows, setup, load)

    def of(name: str) -> Spread:
        return spread([row[name] for row in found])

    if load in PACED:
        return f"p50 {of('p50_ms'):.2f}, p99 {of('p99_ms'):.1f}, added {of('added_p50_ms'):.2f}"
    line = f"{of('per_cpu_second'):.0f}"
    return (
        f"{line}, p50 {of('p50_ms'):.1f}, p99 {of('p99_ms'):.1f}" if "p50_ms" in found[0] else line
    )


def _of(rows: Rows, setup: str, load: str) -> Rows:
    return [row for row in rows if row["setup"] == setup and row["load"] == load]


def _by_round(rows: Rows, setup: str, load: str, figure: str) -> dict[int, float]:
    """A result of before has no such figure."""
    return {row["round"]: row[figure] for row in _of(rows, setup, load) if figure in row}
