"""What the samples say phase by phase: latencies as a histogram, and the numbers in a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.measurement.quantiles import latency_quantile
from counterfault.proxy.report.svg import BOTTOM, TOP, Scale, across, axes, shape, svg, upwards
from counterfault.proxy.report.wording import Data
from counterfault.proxy.values.buckets import LATENCY_BUCKETS
from counterfault.proxy.values.units import human

# So many buckets, each 9 % wide, are drawn as one.
_TOGETHER = 2
_PHASES = {"baseline": "baseline", "running": "faults", "recovering": "recovery"}
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Row:
    """One cohort in one phase."""

    phase: str
    cohort: str
    values: tuple[str, ...]


def columns(metric: Data) -> tuple[str, ...]:
    """What the table's values are."""
    match metric["kind"]:
        case "latency":
            return ("requests", *(f"p{q * 100:g}" for q in _QUANTILES))
        case "success_rate":
            return ("requests", "failed", "share")
        case "slow":
            return ("requests", "slow", "share")
        case _:
            return ("events",)


def rows(record: Data, metric: Data) -> Iterator[Row]:
    """Both cohorts in each phase in which anything was counted."""
    phases = record["samples"].get(metric["name"], {})
    for phase, said in _PHASES.items():
        cells = {cohort: _cells(phases, phase, cohort) for cohort in ENROLLED}
        if any(cells.values()):
            for cohort in ENROLLED:
                yield Row(said, cohort, tuple(_values(metric["kind"], cells[cohort])))


def latencies(record: Data, metric: Data) -> str | None:
    """Both cohorts' latencies while the faults were on; None if it is not about latencies."""
    phases = record["samples"].get(metric["name"], {})
    cells = {cohort: _cells(phases, "running", cohort) for cohort in ENROLLED}
    if metric["kind"] != "latency" or not any(cells.values()):
        return None
    parts = {cohort: _shares(cells[cohort]) for cohort in ENROLLED}
    groups = [group for found in parts.values() for group in found]
    x = across(_edge(min(groups) - 2), _edge(max(groups) + 3), log=True)
    y = upwards(0, max(s for found in parts.values() for s in found.values()) * 1.15)
    layers = [
        *axes(x, y, _decades(x), human, lambda v: f"{v * 100:.3g}%"),
        *(part for cohort in ENROLLED for part in _steps(x, y, parts[cohort], cohort)),
        *(part for cohort in ENROLLED for part in _mark(x, metric, cohort)),
    ]
    return svg(f"{metric['name']}: distribution of latencies while the faults were on", layers)


def _cells(phases: Data, phase: str, cohort: str) -> dict[int, int]:
    """Events by cell, over all replicates."""
    columns = phases.get(phase, {}).get(cohort, {})
    return {int(cell): sum(counts) for cell, counts in columns.items()}


def _values(kind: str, cells: dict[int, int]) -> Iterator[str]:
    events = sum(cells.values())
    yield f"{events:,}"
    if kind == "latency":
        found = (latency_quantile(cells, q) for q in _QUANTILES)
        yield from ("–" if v is None else human(float(f"{v:.3g}")) for v in found)
    elif kind in ("success_rate", "slow"):
        bad = cells.get(1, 0)
        yield f"{bad:,}"
        yield f"{bad / events * 100:.3g}%" if events else "–"


def _shares(cells: dict[int, int]) -> dict[int, float]:
    """The share of requests in each group of buckets."""
    events = sum(cells.values())
    found: dict[int, float] = {}
    for cell, count in cells.items():
        group = cell // _TOGETHER
        found[group] = found.get(group, 0.0) + count / events
    return found


def _edge(group: int) -> float:
    """Where a group of buckets begins, in seconds."""
    growth = LATENCY_BUCKETS[1] / LATENCY_BUCKETS[0]
    return float(LATENCY_BUCKETS[0] * growth ** (group * _TOGETHER - 1))


def _steps(x: Scale, y: Scale, shares: dict[int, float], kind: str) -> Iterator[Element]:
    """An outline that is as high as each group's share, and zero between."""
    if not shares:
        return
    places = [(x.at(_edge(min(shares))), y.at(0))]
    for group in range(min(shares), max(shares) + 1):
        at = y.at(shares.get(group, 0.0))
        places += [(x.at(_edge(group)), at), (x.at(_edge(group + 1)), at)]
    places.append((x.at(_edge(max(shares) + 1)), y.at(0)))
    joined = " ".join(f"{a:g},{b:g}" for a, b in places)
    yield shape("polygon", f"{kind} area", points=joined)


def _mark(x: Scale, metric: Data, cohort: str) -> Iterator[Element]:
    """The quantile that is compared."""
    level = metric[cohort]["level"]
    if level is not None:
        at = x.at(level)
        yield shape("line", f"{cohort} mark", x1=at, x2=at, y1=TOP, y2=BOTTOM)


def _decades(x: Scale) -> list[float]:
    """1, 2 and 5 of each power of ten; the powers alone if that is too many."""
    powers = [10.0**n for n in range(-5, 4)]
    all_ = [round(m * p, 9) for p in powers for m in (1, 2, 5) if x.low <= m * p <= x.high]
    few = [round(p, 9) for p in powers if x.low <= p <= x.high]
    return few if len(all_) > 8 and len(few) > 1 else all_
