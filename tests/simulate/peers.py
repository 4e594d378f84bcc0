"""What others do, at each look at the same requests: Mann–Whitney, a z-test, a plain threshold.

The z-test is told which effect to test against; Mann and Whitney's knows only equality; the
threshold is the tolerance.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.experiments.steady_state import Latency, Metric, Rate, SuccessRate
from counterfault.proxy.values.buckets import LatencyCells
from tests.simulate.crowds import Indexes, Numbers
from tests.simulate.traffic import Cohort, Traffic

_Z95 = 1.6448536269514722
_WINDOW = 5  # looks make one point of Mann and Whitney's, as a canary judge has one each minute
_LEAST_POINTS = 5

type Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Alarms:
    """After how many requests each first said that the experiment is worse; 0: never."""

    mann_whitney: int
    z_test: int
    threshold: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """Both cohorts' cells at each look, over all replicates: shape (looks, cells)."""

    control: Numbers
    experiment: Numbers


def alarms(metric: Metric, traffic: Traffic, looks: Indexes, tolerances: float) -> Alarms:
    """`tolerances`: the effect that the z-test tests against."""
    seen = _Seen(_by_look(traffic.control), _by_look(traffic.experiment))
    z = _z(metric, seen, tolerances)
    above = _distance(metric, seen, 1.0) > 0
    return Alarms(
        _first(_mann_whitney(metric, seen), looks[_WINDOW - 1 :: _WINDOW]),
        _first(z > _Z95, looks),
        _first(above, looks),
    )


def _by_look(cohort: Cohort) -> Numbers:
    looks = len(cohort.ends)
    at = np.repeat(np.arange(looks), np.diff(cohort.ends, prepend=0))
    cells = cohort.cells[: cohort.ends[-1]] % cohort.width
    counts = np.bincount(at * cohort.width + cells, minlength=looks * cohort.width)
    found: Numbers = np.cumsum(counts.reshape(looks, cohort.width), axis=0).astype(float)
    return found


def _first(said: Flags, looks: Indexes) -> int:
    return int(looks[said.argmax()]) if said.any() else 0


def _boundary(metric: Metric, level: Numbers, tolerances: float) -> Numbers:
    """The value that is so many tolerances worse than a level."""
    allowed = metric.tolerance.value * tolerances
    if not metric.tolerance.relative:
        return level + allowed
    if isinstance(metric.kind, SuccessRate):
        return 1 - (1 - level) * (1 - allowed)
    return level * (1 - allowed) if isinstance(metric.kind, Rate) else level * (1 + allowed)


def _values(metric: Metric, cells: Numbers) -> Numbers:
    """What a user of a dashboard sees for these counts, shape (n, cells)."""
    events = np.maximum(cells.sum(axis=1), 1)
    if isinstance(metric.kind, Latency):
        return _quantiles(cells, metric.kind.quantile, metric.kind.cells)
    if isinstance(metric.kind, Rate):
        return events
    found: Numbers = cells[:, 1] / events
    return found


def _distance(metric: Metric, seen: _Seen, tolerances: float) -> Numbers:
    """How much worse than the boundary the experiment looks."""
    control, experiment = _values(metric, seen.control), _values(metric, seen.experiment)
    distance = experiment - _boundary(metric, control, tolerances)
    return -distance if isinstance(metric.kind, Rate) else distance


def _z(metric: Metric, seen: _Seen, tolerances: float) -> Numbers:
    """The usual z-score, for requests that are independent."""
    nc, ne = seen.control.sum(axis=1), seen.experiment.sum(axis=1)
    if isinstance(metric.kind, Rate):
        kept = 1 - metric.tolerance.value * tolerances
        return (kept * nc - ne) / np.sqrt(np.maximum(ne + kept**2 * nc, 1))
    if isinstance(metric.kind, Latency):
        return _quantile_z(metric.kind, metric.tolerance.value * tolerances, seen)
    pc, pe = seen.control[:, 1] / nc, seen.experiment[:, 1] / ne
    relative = metric.tolerance.relative
    slope = _boundary(metric, np.ones(1), tolerances) - _boundary(metric, np.zeros(1), tolerances)
    rho = float(slope[0]) if relative else 1.0
    variance = pe * (1 - pe) / ne + rho**2 * pc * (1 - pc) / nc
    distance = _distance(metric, seen, tolerances)
    found: Numbers = np.where(variance > 0, distance / np.sqrt(np.maximum(variance, 1e-18)), 0.0)
    return found


def _edges(cells: LatencyCells) -> Numbers:
    """The logarithms of the seconds at which cells begin, and the last one ends."""
    found: Numbers = log(cells.bounds[0]) + cells.width * np.arange(-1.0, cells.columns)
    return found


def _quantile_z(kind: Latency, rise: float, seen: _Seen) -> Numbers:
    """Of the experiment's share of requests above control's quantile, moved to the boundary."""
    nc, ne = seen.control.sum(axis=1), seen.experiment.sum(axis=1)
    q, step, edges = kind.quantile, kind.cells.width, _edges(kind.cells)
    x = np.log(_quantiles(seen.control, q, kind.cells)) + log(1 + rise)
    i = np.clip(((x - edges[0]) / step).astype(int), 0, kind.cells.columns - 1)
    below = np.concatenate([np.zeros((len(x), 1)), np.cumsum(seen.experiment, axis=1)], axis=1)
    rows = np.arange(len(x))
    part = (x - edges[i]) / step
    share = (below[rows, i] + part * seen.experiment[rows, i]) / ne
    found: Numbers = (q - share) / (sqrt(q * (1 - q)) * np.sqrt(1 / nc + 1 / ne))
    return found


def _quantiles(cells: Numbers, q: float, of: LatencyCells) -> Numbers:
    """Seconds, on a logarithmic line within the cell."""
    below = np.cumsum(cells, axis=1)
    rank = q * below[:, -1:]
    i = np.minimum((below < rank).sum(axis=1), cells.shape[1] - 1)
    rows = np.arange(len(cells))
    inside = np.maximum(cells[rows, i], 1)
    part = 1 - (below[rows, i] - rank[:, 0]) / inside
    found: Numbers = np.exp(_edges(of)[i] + of.width * part).astype(float)
    return found


def _mann_whitney(metric: Metric, seen: _Seen) -> Flags:
    """Of all windows until each look, one point each; ties are corrected for."""
    x, y = (
        _values(metric, np.diff(cells[_WINDOW - 1 :: _WINDOW], axis=0, prepend=0))
        for cells in (seen.control, seen.experiment)
    )
    if isinstance(metric.kind, Rate):
        x, y = -x, -y
    more = (y[None, :] > x[:, None]) + 0.5 * (y[None, :] == x[:, None])
    u = np.diagonal(np.cumsum(np.cumsum(more, axis=0), axis=1))
    n = np.arange(1, len(x) + 1, dtype=float)
    variance = n * n / 12 * ((2 * n + 1) - _ties(x, y) / (2 * n * (2 * n - 1)))
    z = (u - n * n / 2 - 0.5) / np.sqrt(np.maximum(variance, 1e-9))
    found: Flags = (z > _Z95) & (n >= _LEAST_POINTS)
    return found


def _ties(x: Numbers, y: Numbers) -> Numbers:
    """The sum of t^3 - t over the groups of equal points, for as many first points of each."""
    _, groups = np.unique(np.concatenate([x, y]), return_inverse=True)
    hot = np.zeros((len(x), int(groups.max(initial=0)) + 1))
    rows = np.arange(len(x))
    np.add.at(hot, (rows, groups[: len(x)]), 1)
    np.add.at(hot, (rows, groups[len(x) :]), 1)
    t = np.cumsum(hot, axis=0)
    found: Numbers = (t**3 - t).sum(axis=1)
    return found
