"""The same statistics, slow and straightforward: what the quick ones must agree with."""

from collections.abc import Callable
from math import copysign, erfc, inf, log, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.analysis.deviance import Boundary

type Numbers = NDArray[np.float64]

_GOLDEN = (sqrt(5) - 1) / 2
_FIRST = log(1e-4)
_PSEUDO_USERS = 4
_TINY = 1e-9


def kl(share: float, p: float) -> float:
    """Kullback and Leibler's divergence of two Bernoulli distributions."""
    found = 0.0
    for s, q in ((share, p), (1 - share, 1 - p)):
        if s > 0:
            found += s * log(s / q) if q > 0 else inf
    return found


def least(function: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """Where a function with one valley is least, by golden sections; and its value there."""
    for _ in range(90):
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, b) if function(a) < function(b) else (a, high)
    at = (low + high) / 2
    return at, function(at)


def likeliest(tc: float, pc: float, te: float, pe: float, at: Boundary) -> float:
    """Control's level on the boundary, by halving until no float is left between."""
    low = max(_TINY, (_TINY - at.delta) / at.rho)
    high = min(1.0, (1 - at.delta) / at.rho) - _TINY
    for _ in range(200):
        p = (low + high) / 2
        e = at.rho * p + at.delta
        slope = tc * (p - pc) / (p * (1 - p)) + at.rho * te * (e - pe) / (e * (1 - e))
        low, high = (low, p) if slope > 0 else (p, high)
    return (low + high) / 2


def spread(hits: Numbers, events: Numbers) -> float:
    """The variance of a ratio of sums, from how far each replicate is off."""
    ratio = hits.sum() / events.sum()
    total = sum((y - ratio * n) ** 2 for y, n in zip(hits, events, strict=True))
    return float(len(hits) / (len(hits) - 1) * total / events.sum() ** 2)


def design_effect(cohorts: list[tuple[Numbers, Numbers]], per_user: float) -> float:
    """How far the replicates are off, of how far they would be: hits and events of each cohort.

    As if some users more were in both, who do all or nothing.
    """
    seen = sum(spread(hits, events) * events.sum() ** 2 for hits, events in cohorts)
    model = sum(hits.sum() * (1 - hits.sum() / events.sum()) for hits, events in cohorts)
    alike = _PSEUDO_USERS * per_user
    return float(max(1.0, (seen + alike * per_user) / (model + alike)))


def proportion(
    control: Numbers, experiment: Numbers, hits: int, at: Boundary, per_user: float = 1.0
) -> tuple[float, float]:
    """z, and the variance at the boundary; counts of shape (64, 2)."""
    nc, ne = control.sum(axis=1), experiment.sum(axis=1)
    yc, ye = control[:, hits], experiment[:, hits]
    tc, te, pc, pe = nc.sum(), ne.sum(), yc.sum() / nc.sum(), ye.sum() / ne.sum()
    level = likeliest(tc, pc, te, pe, at)
    deviance = tc * kl(pc, level) + te * kl(pe, at.rho * level + at.delta)
    there = at.rho * level + at.delta
    model = there * (1 - there) / te + at.rho**2 * level * (1 - level) / tc
    inflation = design_effect([(yc, nc), (ye, ne)], per_user)
    distance = at.sign * (pe - at.rho * pc - at.delta)
    z = copysign(sqrt(2 * max(deviance, 0) / inflation), distance) if distance else 0.0
    return z, inflation * model


def below(counts: Numbers, x: float, step: float) -> Numbers:
    """Of each row the events below a latency; within a cell, evenly over its logarithm."""
    starts = _FIRST + step * np.arange(-1, counts.shape[1] - 1)
    found: Numbers = (counts * np.clip((x - starts) / step, 0.0, 1.0)).sum(axis=1)
    return found


def crossing(counts: Numbers, q: float, step: float) -> float:
    """The logarithm of a quantile; the highest, where there are no events between."""
    totals = counts.sum(axis=0)
    wanted, so_far = q * totals.sum(), 0.0
    for cell, count in enumerate(totals):
        if so_far + count > wanted:
            return _FIRST + step * (cell - 1 + float((wanted - so_far) / count))
        so_far += count
    raise ValueError("no events")


def quantile(
    control: Numbers, experiment: Numbers, q: float, rho: float, step: float
) -> tuple[float, float]:
    """z, and the distance; `step`: the logarithm of the width of a cell."""
    all_c, all_e = control.sum(axis=0, keepdims=True), experiment.sum(axis=0, keepdims=True)
    tc, te = float(all_c.sum()), float(all_e.sum())
    xc, xe = crossing(control, q, step), crossing(experiment, q, step) - log(rho)

    def deviance(x: float) -> float:
        fc, fe = below(all_c, x, step)[0] / tc, below(all_e, x + log(rho), step)[0] / te
        return 2 * float(tc * kl(fc, q) + te * kl(fe, q))

    x, found = least(deviance, min(xc, xe), max(xc, xe))
    inflation = _of_quantile(control, experiment, x, rho, step)
    return copysign(sqrt(max(found, 0.0) / inflation), xe - xc), xe - xc


def _of_quantile(control: Numbers, experiment: Numbers, x: float, rho: float, step: float) -> float:
    cohorts = [
        (below(control, x, step), control.sum(axis=1)),
        (below(experiment, x + log(rho), step), experiment.sum(axis=1)),
    ]
    return design_effect(cohorts, 1.0)


def quantile_on_grid(
    control: Numbers, experiment: Numbers, q: float, rho: float, step: float
) -> tuple[float, float]:
    """z and the variance, at the best of 17 thresholds."""
    all_c, all_e = control.sum(axis=0, keepdims=True), experiment.sum(axis=0, keepdims=True)
    tc, te = float(all_c.sum()), float(all_e.sum())
    xc, xe = crossing(control, q, step), crossing(experiment, q, step) - log(rho)
    grid = [xc + (xe - xc) * sin(pi / 32 * i) ** 2 for i in range(17)]
    deviances = [
        2
        * (
            tc * kl(below(all_c, x, step)[0] / tc, q)
            + te * kl(below(all_e, x + log(rho), step)[0] / te, q)
        )
        for x in grid
    ]
    best = int(np.argmin(deviances))
    inflation = _of_quantile(control, experiment, grid[best], rho, step)
    z = copysign(sqrt(max(deviances[best], 0.0) / inflation), xe - xc)
    return z, inflation * q * (1 - q) * (1 / tc + 1 / te)


def mixture(z: float, kappa: float) -> float:
    """The e-value by adding up likelihood ratios, weighted by how likely each effect is.

    z and the effects are in standard errors; effects are half-normal with variance kappa.
    """
    effects = np.linspace(0.0, 12 * sqrt(kappa), 200_001)
    density = 2 * np.exp(-(effects**2) / (2 * kappa)) / sqrt(2 * np.pi * kappa)
    return float(np.trapezoid(density * np.exp(z * effects - effects**2 / 2), effects))


def mixture_within(z: float, kappa: float) -> float:
    """The same for effects that are normal about one `reach`, with 0.3 of it as deviation."""
    reach = sqrt(kappa)
    effects = np.linspace(0.0, 4 * reach, 200_001)
    density = np.exp(-((effects / reach - 1) ** 2) / (2 * 0.3**2))
    density /= np.trapezoid(density, effects)
    return float(np.trapezoid(density * np.exp(z * effects - effects**2 / 2), effects))


def student_tail(t: float, freedom: float) -> float:
    """The chance of a larger t, by adding up over the angle whose tangent it is."""
    angles = np.linspace(np.arctan(t / sqrt(freedom)), np.pi / 2, 200_001)
    circle = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    part, whole = (
        np.trapezoid(np.maximum(np.cos(x), 0.0) ** (freedom - 1), x) for x in (angles, circle)
    )
    return float(part / whole)


def normal_score(tail: float) -> float:
    """The normal score that only such a share exceeds, for shares up to a half."""
    low, high = 0.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        more = 0.5 * erfc(middle / sqrt(2)) > tail
        low, high = (middle, high) if more else (low, middle)
    return low


def beta_average(control: int, experiment: int, a: float, b: float) -> float:
    """log of the average of p^experiment (1-p)^control over a beta distribution, by adding up."""
    p = np.linspace(0, 1, 200_002)[1:-1]
    weights = (a - 1) * np.log(p) + (b - 1) * np.log1p(-p)
    weights = np.exp(weights - weights.max())
    logs = experiment * np.log(p) + control * np.log1p(-p)
    top = float(logs.max())
    return top + log(float((weights * np.exp(logs - top)).sum() / weights.sum()))
