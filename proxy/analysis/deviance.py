"""Signals from samples: signed roots of deviances at the boundary, robust to correlated users.

The boundary is experiment = rho * control + delta; the baseline level, which is not known, is the
one that fits best on it. How much more than independent requests the cohorts vary is read off the
replicates, and the deviance is divided by it.
"""

from dataclasses import dataclass
from math import asin, copysign, inf, log, pi, sin, sqrt

from counterfault.proxy.analysis.latency_cdf import BUCKET_WIDTH, LatencyCdf
from counterfault.proxy.analysis.replicate_variance import Events, Share
from counterfault.proxy.analysis.sequential import Signal

_TINY = 1e-9
_STEPS = 60
# The step of Newton's after which the level is known to twelve digits.
_CLOSE = 1e-6
# Closer at both ends: a cohort that is much larger than the other keeps its threshold.
_ANGLE = pi / 32
_GRID = tuple(sin(_ANGLE * i) ** 2 for i in range(17))


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


def proportion(control: Share, experiment: Share, at: Boundary) -> Signal:
    """Shares of hits."""
    tc, te = control.total, experiment.total
    pc, pe = control.hits / tc, experiment.hits / te
    level = _level(tc, pc, te, pe, at)
    expected = at.rho * level + at.delta
    independent = expected * (1 - expected) / te + at.rho**2 * level * (1 - level) / tc
    seen = experiment.variance + at.rho**2 * control.variance
    inflation = max(1.0, seen / independent)
    deviance = 2 * max(0.0, tc * _divergence(pc, level) + te * _divergence(pe, expected))
    distance = at.sign * (pe - at.rho * pc - at.delta)
    z = copysign(sqrt(deviance / inflation), distance) if distance else 0.0
    freedom = _freedom(control.clusters, experiment.clusters)
    # Of the likeliest level, not of control's own: 20 % more than nothing would be no way off.
    return Signal(distance, z, inflation * independent, at.reach(level), freedom)


def quantile(control: LatencyCdf, experiment: LatencyCdf, at: Boundary) -> tuple[Signal, float]:
    """A quantile's ratio; and the effective replicates of the cohort that has fewer.

    Along a grid of thresholds, the one at which both cohorts' shares deviate least from q (cf.
    Howard & Ramdas, Bernoulli 2022, for quantiles by their distribution function). The distance is
    a logarithm of ratios.
    """
    q, shift = control.q, log(at.rho) / BUCKET_WIDTH
    xc, xe = control.position(), experiment.position() - shift
    x, deviance = _meeting(control, xc, experiment, xe, shift)
    (cc, seen_c), (ce, seen_e) = control.split(x), experiment.split(x + shift)
    independent = q * (1 - q) * (1 / control.total + 1 / experiment.total)
    inflation = max(1.0, (seen_c + seen_e) / independent)
    z = copysign(sqrt(2 * deviance / inflation), xe - xc)
    reached = control.below(xc + log(1 + at.times) / BUCKET_WIDTH) / control.total
    reach = max(abs(reached - q), 1e-12)
    freedom = _freedom(cc, ce)
    return Signal(BUCKET_WIDTH * (xe - xc), z, inflation * independent, reach, freedom), min(cc, ce)


def rate(control: tuple[Events, float], experiment: tuple[Events, float], at: Boundary) -> Signal:
    """Rates: for each cohort events and its exposure, in any unit, the same for all replicates."""
    (yc, wc), (ye, we) = control, experiment
    rc, re = yc.total / wc, ye.total / we
    # Events of one user may well be as regular as a clock; between users nothing is.
    least = re / we + at.rho**2 * rc / wc
    seen = ye.variance / we**2 + at.rho**2 * yc.variance / wc**2
    variance = max(seen, least, 1e-300)
    distance = at.sign * (re - at.rho * rc - at.delta)
    freedom = max(1.0, yc.replicates + ye.replicates - 2.0)
    return Signal(distance, distance / sqrt(variance), variance, at.reach(rc), freedom)


def _level(tc: float, pc: float, te: float, pe: float, at: Boundary) -> float:
    """Control's level if the boundary were true: the likeliest.

    By Newton's method, from where both cohorts together would have it, each weighing as much as
    it tells; where a step leads out of the interval in which it must be, that is halved.
    """
    rho, delta = at.rho, at.delta
    other = (pe - delta) / rho
    lowest, highest = max(_TINY, (_TINY - delta) / rho), min(1.0, (1 - delta) / rho) - _TINY
    low, high = (pc, other) if pc < other else (other, pc)
    hits, hits_e = tc * pc, rho * te * pe
    known = hits, tc - hits, hits_e, rho * te - hits_e, rho, delta
    # Likelier still would be less than nothing, or more than all.
    if low < lowest:
        low = lowest
        if high <= low or _slope(low, *known)[0] >= 0:
            return low
    if high > highest:
        high = highest
        if low >= high or _slope(high, *known)[0] <= 0:
            return high
    weight_c, weight_e = _weight(tc, pc), rho * rho * _weight(te, pe)
    level = (weight_c * pc + weight_e * other) / (weight_c + weight_e)
    for _ in range(_STEPS):
        if not low <= level <= high:
            level = (low + high) / 2
        slope, curve = _slope(level, *known)
        low, high = (low, level) if slope > 0 else (level, high)
        step = slope / curve
        # Of how far it is from where either cohort would have none, or all.
        if abs(step) <= _CLOSE * min(level - lowest, highest - level):
            return level - step
        level -= step
    return (low + high) / 2


def _weight(total: float, share: float) -> float:
    """One over the variance of a share; no hits at all do not make it nothing."""
    share = (total * share + 0.5) / (total + 1)
    return total / (share * (1 - share))


def _slope(
    m: float, hits: float, rest: float, hits_e: float, rest_e: float, rho: float, delta: float
) -> tuple[float, float]:
    """Of half the deviance over control's level m, and the slope of that; `_e` are times rho."""
    e = rho * m + delta
    n, f = 1 - m, 1 - e
    hits, rest, hits_e, rest_e = hits / m, rest / n, hits_e / e, rest_e / f
    return rest - hits + rest_e - hits_e, rest / n + hits / m + rho * (rest_e / f + hits_e / e)


def _freedom(control: float, experiment: float) -> float:
    """By both cohorts' effective replicates."""
    return max(1.0, control + experiment - 2)


def _divergence(share: float, p: float) -> float:
    """Kullback and Leibler's, of two Bernoulli distributions."""
    bad = share * log(share / p) if share > 0 else 0.0
    good = (1 - share) * log((1 - share) / (1 - p)) if share < 1 else 0.0
    return bad + good


def _meeting(
    control: LatencyCdf, xc: float, experiment: LatencyCdf, xe: float, shift: float
) -> tuple[float, float]:
    """The place on the grid where the cohorts' shares deviate least from q; half the deviance.

    From control's quantile xc to experiment's xe, control's part rises and experiment's falls. So
    from where they would meet if both were parabolas one goes either way, until one part alone is
    more than the least so far.
    """
    width, deviance_c, deviance_e = xe - xc, control.deviance, experiment.deviance
    first = round(asin(sqrt(experiment.total / (control.total + experiment.total))) / _ANGLE)
    best, least = xc, inf
    for part in _GRID[first:]:
        x = xc + width * part
        rising = deviance_c(x)
        if rising >= least:
            break
        found = rising + deviance_e(x + shift)
        if found < least:
            best, least = x, found
    for part in reversed(_GRID[:first]):
        x = xc + width * part
        falling = deviance_e(x + shift)
        if falling >= least:
            break
        found = falling + deviance_c(x)
        if found < least:
            best, least = x, found
    return best, max(least, 0.0)
