"""Signals from samples: signed roots of deviances at the boundary, robust to correlated users.

The boundary is experiment = rho * control + delta; the baseline level, which is not known, is the
one that fits best on it. How much more than independent requests the cohorts vary is read off the
replicates, users being spread over them (the delta method's variance of a ratio; Deng, Lu & Qin
2021), and the deviance is divided by it. The effective number of replicates is Carter, Schnepel
and Steigerwald's (REStat 2017).
"""

from dataclasses import dataclass
from math import copysign, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.sequential import Signal
from proxy.cohorts import REPLICATES
from proxy.sample import LATENCY_CELLS, SHARE_CELLS, Counts
from proxy.tally import LATENCY_BUCKETS

type Numbers = NDArray[np.float64]

_TINY = 1e-9
_HALVINGS = 40
_CLOSE = 1e-6
_NOT_ZERO = 1e-12
# Closer at both ends: a cohort that is much larger than the other keeps its threshold.
_GRID = np.sin(np.linspace(0.0, pi / 2, 17)) ** 2
_STEP = log(LATENCY_BUCKETS[1] / LATENCY_BUCKETS[0])
_ONES = {cells: np.ones(cells) for cells in (SHARE_CELLS, LATENCY_CELLS)}
_ALL_REPLICATES = np.ones(REPLICATES)
# The boundaries of all cells on the logarithmic scale; the outer cells get one step each.
_EDGES = np.log(LATENCY_BUCKETS[0]) + _STEP * np.arange(-1, len(LATENCY_BUCKETS) + 1)


@dataclass(frozen=True, slots=True)
class Boundary:
    """experiment = rho * control + delta; `sign` -1: lower is worse.

    `plus` and `times` say how far no effect is from it: plus + times * control's level.
    """

    rho: float = 1.0
    delta: float = 0.0
    sign: int = 1
    plus: float = 0.0
    times: float = 0.0

    def reach(self, level: float) -> float:
        return max(self.plus + self.times * level, 1e-12)


@dataclass(frozen=True, slots=True)
class Events:
    """One cohort's events: `each` replicate's, and how many of equal size would tell as much."""

    each: Numbers
    total: float
    clusters: float

    @classmethod
    def of(cls, each: Numbers) -> "Events":
        total = _sum(each)
        return cls(each, total, total * total / float(each @ each) if total else 0.0)


def events_of(counts: Counts) -> Events:
    # Three times as quick as a sum along the axis, and this is done every second.
    return Events.of(counts @ _ONES[counts.shape[1]])


def proportion(
    control: tuple[Numbers, Events], experiment: tuple[Numbers, Events], at: Boundary
) -> Signal:
    """Shares: for each cohort hits per replicate, of shape (64,), and events."""
    (yc, nc), (ye, ne) = control, experiment
    tc, te = nc.total, ne.total
    pc, pe = _sum(yc) / tc, _sum(ye) / te
    level = _level(tc, pc, te, pe, at)
    expected = at.rho * level + at.delta
    independent = expected * (1 - expected) / te + at.rho**2 * level * (1 - level) / tc
    seen = _between(ye, ne, pe) + at.rho**2 * _between(yc, nc, pc)
    inflation = max(1.0, seen / independent)
    deviance = 2 * max(0.0, tc * _divergence(pc, level) + te * _divergence(pe, expected))
    distance = at.sign * (pe - at.rho * pc - at.delta)
    z = copysign(sqrt(deviance / inflation), distance) if distance else 0.0
    # Of the likeliest level, not of control's own: 20 % more than nothing would be no way off.
    return Signal(distance, z, inflation * independent, at.reach(level), _freedom(nc, ne))


def quantile(
    control: tuple[Counts, Events], experiment: tuple[Counts, Events], q: float, at: Boundary
) -> Signal:
    """A quantile's ratio: for each cohort counts of shape (64, 161) and events.

    Along a grid of thresholds, the one at which both cohorts' shares deviate least from q (cf.
    Howard & Ramdas, Bernoulli 2022, for quantiles by their distribution function). The distance is
    a logarithm of ratios.
    """
    (hc, nc), (he, ne) = control, experiment
    below_c, below_e = _below(hc), _below(he)
    tc, te = nc.total, ne.total
    shift = log(at.rho)
    xc, xe = _inverse(below_c, q * tc), _inverse(below_e, q * te) - shift
    grid = min(xc, xe) + abs(xc - xe) * _GRID
    shares = np.empty((2, len(grid)))
    shares[0], shares[1] = _at(grid, below_c), _at(grid + shift, below_e)
    sizes = np.array((tc, te))
    shares /= sizes[:, np.newaxis]
    deviances = sizes @ _divergences(shares, q)
    best = int(deviances.argmin())
    x = float(grid[best])
    yc, ye = _above(hc, x), _above(he, x + shift)
    independent = q * (1 - q) * (1 / tc + 1 / te)
    seen = _between(yc, nc, _sum(yc) / tc) + _between(ye, ne, _sum(ye) / te)
    inflation = max(1.0, seen / independent)
    z = copysign(sqrt(2 * max(0.0, float(deviances[best])) / inflation), xe - xc)
    near, apart = _at(np.array((xc, xc + log(1 + at.times))), below_c).tolist()
    reach = abs(apart - near) / tc
    return Signal(xe - xc, z, inflation * independent, max(reach, 1e-12), _freedom(nc, ne))


def log_quantile(counts: Counts, q: float) -> float:
    """A quantile's logarithm, of counts of shape (64, 161) that are not all zero."""
    below = _below(counts)
    return _inverse(below, q * float(below[-1]))


def rate(control: tuple[Events, float], experiment: tuple[Events, float], at: Boundary) -> Signal:
    """Rates: for each cohort events and its exposure, in any unit, the same for all replicates."""
    (yc, wc), (ye, we) = control, experiment
    rc, re = yc.total / wc, ye.total / we
    # Events of one user may well be as regular as a clock; between users nothing is.
    least = re / we + at.rho**2 * rc / wc
    seen = _spread(ye) / we**2 + at.rho**2 * _spread(yc) / wc**2
    variance = max(seen, least, 1e-300)
    distance = at.sign * (re - at.rho * rc - at.delta)
    freedom = max(1.0, len(yc.each) + len(ye.each) - 2.0)
    return Signal(distance, distance / sqrt(variance), variance, at.reach(rc), freedom)


def _level(tc: float, pc: float, te: float, pe: float, at: Boundary) -> float:
    """Control's level if the boundary were true: the likeliest, by halving an interval."""
    rho, delta = at.rho, at.delta
    other = (pe - delta) / rho
    lowest, highest = max(_TINY, (_TINY - delta) / rho), min(1, (1 - delta) / rho) - _TINY
    low = min(max(min(pc, other), lowest), highest)
    high = min(max(pc, other, lowest), highest)
    for _ in range(_HALVINGS):
        if high - low < _CLOSE * min(high, 1 - low):
            break  # the deviance is flat here
        m = (low + high) / 2
        e = rho * m + delta
        slope = tc * (m - pc) / (m * (1 - m)) + rho * te * (e - pe) / (e * (1 - e))
        low, high = (low, m) if slope > 0 else (m, high)
    return (low + high) / 2


def _between(hits: Numbers, events: Events, ratio: float) -> float:
    """The variance of a ratio of sums, from how it varies between replicates."""
    off = hits - ratio * events.each
    k = len(hits)
    return k / (k - 1) * float(off @ off) / (events.total * events.total)


def _spread(events: Events) -> float:
    """The variance of a sum, from how its parts vary."""
    k = len(events.each)
    off = events.each - events.total / k
    return k / (k - 1) * float(off @ off)


def _sum(numbers: Numbers) -> float:
    return float(np.add.reduce(numbers))


def _freedom(control: Events, experiment: Events) -> float:
    return max(1.0, control.clusters + experiment.clusters - 2)


def _divergence(share: float, p: float) -> float:
    """Kullback and Leibler's, of two Bernoulli distributions."""
    bad = share * log(share / p) if share > 0 else 0.0
    good = (1 - share) * log((1 - share) / (1 - p)) if share < 1 else 0.0
    return bad + good


def _divergences(shares: Numbers, p: float) -> Numbers:
    """The same of many shares at once."""
    bad, good = shares + _NOT_ZERO, (1 + _NOT_ZERO) - shares
    found: Numbers = bad * (np.log(bad) - log(p)) + good * (np.log(good) - log(1 - p))
    return found


def _below(counts: Counts) -> Numbers:
    """The number of events below each edge."""
    below = np.zeros(counts.shape[1] + 1)
    np.add.accumulate(_ALL_REPLICATES @ counts, out=below[1:])
    return below


def _at(x: Numbers, below: Numbers) -> Numbers:
    """The number of events below any places."""
    return np.interp(x, _EDGES, below)


def _inverse(below: Numbers, events: float) -> float:
    """Below which place there are so many events."""
    return float(np.interp(events, below, _EDGES))


def _above(counts: Counts, x: float) -> Numbers:
    """Events per replicate above a threshold, on a straight line within its cell."""
    i = min(max(int((x - _EDGES[0]) / _STEP), 0), counts.shape[1] - 1)
    cells = _ONES[counts.shape[1]].copy()
    cells[:i] = 0.0
    cells[i] = min(max((_EDGES[i + 1] - x) / _STEP, 0.0), 1.0)
    found: Numbers = counts @ cells
    return found
