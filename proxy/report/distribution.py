"""Shows the samples of each phase: latencies as a histogram, and the numbers as a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.measurement.quantiles import latency_quantile
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.report.svg import (
    BOTTOM,
    TOP,
    Scale,
    axes,
    chart,
    horizontal_scale,
    shape,
    vertical_scale,
)
from counterfault.proxy.values.buckets import LATENCY_GROWTH, cell_bounds
from counterfault.proxy.values.units import human

# A bar of the histogram stands for this many buckets; each is about 9 % wide.
_BUCKETS_PER_BAR = 2
_PHASES = {"baseline": "baseline", "running": "faults", "recovering": "recovery"}
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: one cohort in one phase. `values` belong to `columns`."""

    phase: str
    cohort: str
    values: tuple[str, ...]


def columns(metric: MetricSummary) -> tuple[str, ...]:
    """Return the headings of the values in the table of a metric."""
    match metric.kind:
        case "latency":
            return ("requests", *(f"p{q * 100:g}" for q in _QUANTILES))
        case "success_rate":
            return ("requests", "failed", "share")
        case "slow":
            return ("requests", "slow", "share")
        case _:
            return ("events",)


def rows(record: RunRecord, metric: MetricSummary) -> Iterator[Row]:
    """Yield a row for each cohort in each phase in which either cohort counted an event."""
    for phase, name in _PHASES.items():
        cells = _cells(record, metric, phase)
        if any(cells.values()):
            for cohort in ENROLLED:
                yield Row(name, cohort, tuple(_values(metric, cells[cohort])))


def latency_histogram(record: RunRecord, metric: MetricSummary) -> str | None:
    """Return the chart, as SVG, of both cohorts' latencies while the faults were on.

    None: the metric is not a latency, or nothing was counted.
    """
    cells = _cells(record, metric, "running")
    if metric.kind != "latency" or not any(cells.values()):
        return None
    parts = {cohort: _shares(cells[cohort]) for cohort in ENROLLED}
    bars = [bar for found in parts.values() for bar in found]
    edge = _edges(metric)
    x = horizontal_scale(edge(min(bars) - 2), edge(max(bars) + 3), log=True)
    y = vertical_scale(0, max(s for found in parts.values() for s in found.values()) * 1.15)
    layers = [
        *axes(x, y, _decades(x), human, lambda v: f"{v * 100:.3g}%"),
        *(part for cohort in ENROLLED for part in _outline(x, y, parts[cohort], cohort, edge)),
        *(part for cohort in ENROLLED for part in _quantile_mark(x, metric, cohort)),
    ]
    return chart(f"{metric.name}: distribution of latencies while the faults were on", layers)


def _cells(record: RunRecord, metric: MetricSummary, phase: str) -> dict[str, dict[int, int]]:
    """Return each cohort's events in a phase by cell, summed over all replicates."""
    samples = record.samples.get(metric.name, {}).get(phase)
    if samples is None:
        return {cohort: {} for cohort in ENROLLED}
    return {
        cohort: {int(cell): sum(counts) for cell, counts in of_cohort(samples, cohort).items()}
        for cohort in ENROLLED
    }


def _values(metric: MetricSummary, cells: dict[int, int]) -> Iterator[str]:
    events, kind = sum(cells.values()), metric.kind
    yield f"{events:,}"
    if kind == "latency":
        bounds = cell_bounds(metric.cell_growth or LATENCY_GROWTH)
        found = (latency_quantile(cells, q, bounds) for q in _QUANTILES)
        yield from ("–" if v is None else human(float(f"{v:.3g}")) for v in found)
    elif kind in ("success_rate", "slow"):
        bad = cells.get(1, 0)
        yield f"{bad:,}"
        yield f"{bad / events * 100:.3g}%" if events else "–"


def _shares(cells: dict[int, int]) -> dict[int, float]:
    """Return the share of requests, 0 to 1, in each bar."""
    events = sum(cells.values())
    found: dict[int, float] = {}
    for cell, count in cells.items():
        bar = cell // _BUCKETS_PER_BAR
        found[bar] = found.get(bar, 0.0) + count / events
    return found


def _edges(metric: MetricSummary) -> Callable[[int], float]:
    """Return a function that gives the latency in seconds at which a bar begins."""
    growth = metric.cell_growth or LATENCY_GROWTH
    first = cell_bounds(growth)[0]
    return lambda bar: float(first * growth ** (bar * _BUCKETS_PER_BAR - 1))


def _outline(
    x: Scale, y: Scale, shares: dict[int, float], kind: str, edge: Callable[[int], float]
) -> Iterator[Element]:
    """Yield the outline of a histogram, which is at zero where no request was."""
    if not shares:
        return
    places = [(x.at(edge(min(shares))), y.at(0))]
    for bar in range(min(shares), max(shares) + 1):
        at = y.at(shares.get(bar, 0.0))
        places += [(x.at(edge(bar)), at), (x.at(edge(bar + 1)), at)]
    places.append((x.at(edge(max(shares) + 1)), y.at(0)))
    joined = " ".join(f"{a:g},{b:g}" for a, b in places)
    yield shape("polygon", f"{kind} area", points=joined)


def _quantile_mark(x: Scale, metric: MetricSummary, cohort: str) -> Iterator[Element]:
    """Yield a vertical line at the quantile that the experiment compares."""
    level = of_cohort(metric, cohort).level
    if level is not None:
        at = x.at(level)
        yield shape("line", f"{cohort} mark", x1=at, x2=at, y1=TOP, y2=BOTTOM)


def _decades(x: Scale) -> list[float]:
    """Return 1, 2 and 5 of each power of ten on a scale; only the powers if that is too many."""
    powers = [10.0**n for n in range(-5, 4)]
    all_ = [round(m * p, 9) for p in powers for m in (1, 2, 5) if x.low <= m * p <= x.high]
    few = [round(p, 9) for p in powers if x.low <= p <= x.high]
    return few if len(all_) > 8 and len(few) > 1 else all_
