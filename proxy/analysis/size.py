"""How many events a metric needs until it can be said to be within its tolerance.

For the cohort that has fewer, if the fault has no effect; half of such runs need less.
"""

from math import ceil, log
from statistics import NormalDist

from proxy.analysis.compare import Comparison, Threshold, boundary_of
from proxy.analysis.sequential import needed_z
from proxy.experiment import Latency, Metric, Rate, SuccessRate

# What is assumed before anything has been measured; `check` says so.
ASSUMED_BAD = 0.01
ASSUMED_SIGMA = 0.7
"""Of a lognormal latency: its p99 is five times its median."""
_NORMAL = NormalDist()


def needed(comparison: Comparison) -> int | None:
    """Events that the smaller cohort needs, going by what has been seen; None: nothing has."""
    signal, events = comparison.signal, comparison.pair.fewest
    if signal is None or not events:
        return None
    return _events(signal.variance * events, signal.reach, comparison.threshold.within)


def expected(metric: Metric, threshold: Threshold, bad: float = ASSUMED_BAD) -> int:
    """Events that each cohort needs, assuming a level and independent requests.

    `bad` is the share of bad events in control, for shares only.
    """
    boundary = boundary_of(metric)
    match metric.kind:
        case Latency(quantile=q):
            away = _NORMAL.cdf(_NORMAL.inv_cdf(q) + log(boundary.rho) / ASSUMED_SIGMA) - q
            variance = 2 * q * (1 - q)
        case Rate():
            away, variance = boundary.reach(1.0), 1 + boundary.rho**2
        case kind:
            level = 1 - bad if isinstance(kind, SuccessRate) and boundary.sign < 0 else bad
            there = min(boundary.rho * level + boundary.delta, 1.0)
            away = boundary.reach(level)
            variance = there * (1 - there) + boundary.rho**2 * level * (1 - level)
    return _events(variance, away, threshold.within)


def _events(variance: float, reach: float, target: float) -> int:
    """From the variance that one event each would have; kappa is to be z squared."""
    return ceil(needed_z(target) ** 2 * variance / reach**2)
