"""Signals from samples: signed roots of deviances, corrected for requests of the same users.

The boundary is experiment = rho * control + delta. Control's level on it is not known; the level of
greatest likelihood is taken (profile likelihood). Requests of one user are correlated: by how much
the replicates vary more than independent requests would is measured, and the deviance is divided by
that (overdispersion, as in quasi-likelihood: Wedderburn, Biometrika 61, 1974).

A rare event that was not seen yet shows no correlation, though it may be that of few users who have
it each time. So the overdispersion is shrunk towards "each user is one observation", as if some
more users had been seen whose requests were all alike (`_design_effect`).
"""

from dataclasses import dataclass
from math import asin, ceil, copysign, floor, inf, log, pi, sin, sqrt

from counterfault.proxy.analysis.latency_cdf import LatencyCdf
from counterfault.proxy.analysis.replicate_variance import Events, Share
from counterfault.proxy.analysis.sequential import Signal

# How many users with all requests alike are added to those seen. Measured with the evidence of
# `sequential`, for harm of few users that is as large as the tolerance: with 1 it was found to be
# within the tolerance in 8 % of runs, with 2 in 7 %, with 4 in 5 %; with more hardly less often.
# Where few users send most requests (lognormal, sigma 1.5) it still was in 7 to 12 %: how many an
# average user sends says too little then.
_PSEUDO_USERS = 4
_TINY = 1e-9
_STEPS = 60
# Relative step of Newton's method after which the level is known to twelve digits.
_CLOSE = 1e-6
# The grid of `quantile`, as parts of the way from control's quantile to the experiment's. It is
# finer at both ends: if one cohort is much larger, the position is close to its quantile.
_ANGLE = pi / 32
_GRID = tuple(sin(_ANGLE * i) ** 2 for i in range(17))


@dataclass(frozen=True, slots=True)
class Boundary:
    """The boundary of a tolerance: experiment = rho * control + delta.

    `sign` is -1 where lower is worse, else 1. `plus + times * level` is the distance from the
    boundary to no effect at all. Of a quantile, `cells` is the logarithm of rho, and `reach_cells`
    that distance, both in widths of a cell.
    """

    rho: float = 1.0
    delta: float = 0.0
    sign: int = 1
    plus: float = 0.0
    times: float = 0.0
    cells: float = 0.0
    reach_cells: float = 0.0

    def reach(self, level: float) -> float:
        """Return the distance from the boundary to no effect, at control's level; above zero."""
        return max(self.plus + self.times * level, 1e-12)


def proportion(control: Share, experiment: Share, at: Boundary, per_user: float = 1.0) -> Signal:
    """Return the signal of two shares of hits; its distance is a difference of shares.

    `per_user` is how many events a user has on average, at least 1.
    """
    tc, te = control.total, experiment.total
    pc, pe = control.hits / tc, experiment.hits / te
    level = _level(tc, pc, te, pe, at)
    expected = at.rho * level + at.delta
    independent = expected * (1 - expected) / te + at.rho**2 * level * (1 - level) / tc
    inflation = _design_effect(control, experiment, per_user)
    deviance = 2 * max(0.0, tc * _divergence(pc, level) + te * _divergence(pe, expected))
    distance = at.sign * (pe - at.rho * pc - at.delta)
    z = copysign(sqrt(deviance / inflation), distance) if distance else 0.0
    freedom = _freedom(control.clusters, experiment.clusters)
    # At the fitted level: 20 % more than control's own would be no distance if that is zero.
    return Signal(distance, z, inflation * independent, at.reach(level), freedom)


def quantile(
    control: LatencyCdf, experiment: LatencyCdf, at: Boundary, width: float, per_user: float = 1.0
) -> tuple[Signal, float]:
    """Return the signal of a ratio of quantiles, and the fewer effective replicates of a cohort.

    Of a grid of thresholds, that one is taken at which the shares below it, in both cohorts,
    deviate least from q. (Howard & Ramdas, Sequential estimation of quantiles, Bernoulli 28, 2022,
    bound quantiles by way of the distribution function, too.) The distance is the logarithm of the
    ratio of the quantiles, less that of the boundary.

    Args:
        control: Its latencies.
        experiment: Its latencies, in the same cells.
        at: The boundary.
        width: The width of a cell, a natural logarithm.
        per_user: How many events a user has on average, at least 1.
    """
    q, shift = control.q, at.cells
    quantile_c, quantile_e = control.position(), experiment.position()
    xc, xe = quantile_c, quantile_e - shift
    x, deviance = _least_deviance(control, xc, experiment, xe, shift)
    below_c, below_e = control.split(x), experiment.split(x + shift)
    independent = q * (1 - q) * (1 / control.total + 1 / experiment.total)
    inflation = _design_effect(below_c, below_e, per_user)
    z = copysign(sqrt(2 * deviance / inflation), xe - xc)
    reached = control.below(xc + at.reach_cells) / control.total
    reach = max(abs(reached - q), 1e-12)
    clusters = below_c.clusters, below_e.clusters
    blind = _blind(quantile_c, quantile_e, shift, control.columns - 1)
    signal = Signal(
        width * (xe - xc),
        z,
        inflation * independent,
        reach,
        _freedom(*clusters),
        width * blind,
        width * at.reach_cells / reach,
    )
    return signal, min(clusters)


def _blind(control: float, experiment: float, shift: float, last: int) -> float:
    """Return how far from the boundary the quantiles' cells leave the distance open, in cells.

    If the cell of the experiment's quantile is the one to which the boundary moves the cell of
    control's, the quantiles may be on either side of the boundary: where they are within their
    cells is not known. In the last cell nothing is known but that it took longer, or failed.
    """
    c, e = int(control), int(experiment)
    same = c + floor(shift) <= e <= c + ceil(shift)
    both_slowest = e == last and c + ceil(shift) >= last
    both_fastest = c == 0 and e <= ceil(shift)
    return (
        max(abs(experiment - control - shift), 1.0) if same or both_slowest or both_fastest else 0.0
    )


def _design_effect(control: Share, experiment: Share, per_user: float) -> float:
    """Return by how much less requests tell than as many independent ones; at least 1.

    It is the squared deviations of the replicates, divided by those that independent requests would
    have, with `_PSEUDO_USERS` users added to both: each has `per_user` requests that are all alike.
    """
    squares = independent = 0.0
    for each in (control, experiment):
        squares += each.total * each.total * each.variance
        independent += each.hits * (1 - each.hits / each.total)
    users = _PSEUDO_USERS * per_user
    return max(1.0, (squares + users * per_user) / (independent + users))


def rate(control: tuple[Events, float], experiment: tuple[Events, float], at: Boundary) -> Signal:
    """Return the signal of two rates; its distance is a difference of rates.

    Each cohort has its events and its exposure, in any unit that both share.
    """
    (yc, wc), (ye, we) = control, experiment
    rc, re = yc.total / wc, ye.total / we
    # The events of one user may be regular; those of several users vary at least as Poisson's do.
    least = re / we + at.rho**2 * rc / wc
    seen = ye.variance / we**2 + at.rho**2 * yc.variance / wc**2
    variance = max(seen, least, 1e-300)
    distance = at.sign * (re - at.rho * rc - at.delta)
    freedom = max(1.0, yc.replicates + ye.replicates - 2.0)
    return Signal(distance, distance / sqrt(variance), variance, at.reach(rc), freedom)


def _level(tc: float, pc: float, te: float, pe: float, at: Boundary) -> float:
    """Return control's level of greatest likelihood if the boundary were true, 0 to 1.

    Newton's method, from the mean of what both cohorts say, weighted by their information. Where a
    step leaves the interval that must contain the level, the interval is halved instead.

    Args:
        tc: Control's events.
        pc: Control's share of hits.
        te: The experiment's events.
        pe: The experiment's share of hits.
        at: The boundary.
    """
    rho, delta = at.rho, at.delta
    other = (pe - delta) / rho
    lowest, highest = max(_TINY, (_TINY - delta) / rho), min(1.0, (1 - delta) / rho) - _TINY
    low, high = (pc, other) if pc < other else (other, pc)
    hits, hits_e = tc * pc, rho * te * pe
    known = hits, tc - hits, hits_e, rho * te - hits_e, rho, delta
    # The greatest likelihood may lie outside of the shares that are possible.
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
        # Relative to the distance from the nearer end of what is possible.
        if abs(step) <= _CLOSE * min(level - lowest, highest - level):
            return level - step
        level -= step
    return (low + high) / 2


def _weight(total: float, share: float) -> float:
    """Return the information of a share, one over its variance; finite also without hits."""
    share = (total * share + 0.5) / (total + 1)
    return total / (share * (1 - share))


def _slope(
    m: float, hits: float, rest: float, hits_e: float, rest_e: float, rho: float, delta: float
) -> tuple[float, float]:
    """Return the first and second derivative of half the deviance by control's level `m`.

    `hits_e` and `rest_e` are the experiment's events, times rho.
    """
    e = rho * m + delta
    n, f = 1 - m, 1 - e
    hits, rest, hits_e, rest_e = hits / m, rest / n, hits_e / e, rest_e / f
    return rest - hits + rest_e - hits_e, rest / n + hits / m + rho * (rest_e / f + hits_e / e)


def _freedom(control: float, experiment: float) -> float:
    """Return the degrees of freedom of both cohorts' effective replicates."""
    return max(1.0, control + experiment - 2)


def _divergence(share: float, p: float) -> float:
    """Return the Kullback-Leibler divergence of a Bernoulli distribution from another."""
    bad = share * log(share / p) if share > 0 else 0.0
    good = (1 - share) * log((1 - share) / (1 - p)) if share < 1 else 0.0
    return bad + good


def _least_deviance(
    control: LatencyCdf, xc: float, experiment: LatencyCdf, xe: float, shift: float
) -> tuple[float, float]:
    """Return the position on the grid with the least deviance, and half of that deviance.

    From control's quantile `xc` to the experiment's `xe`, control's part of the deviance rises and
    the experiment's falls. The search starts where their sum would be least if both were parabolas,
    and goes both ways until one part alone exceeds the least sum so far.
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
