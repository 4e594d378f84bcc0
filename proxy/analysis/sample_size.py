"""How many events a metric needs to be found within its tolerance.

The number is for the cohort that has fewer events, if the fault has no effect; it is the median,
half of such runs need fewer. It is computed from the comparison of a cohort with itself: by how
much its events would have to be multiplied for the evidence to be enough.
"""

from math import ceil, isfinite
from statistics import NormalDist

import numpy as np

from counterfault.proxy.analysis.comparison import Comparison, Threshold, signal, users_for
from counterfault.proxy.analysis.sequential import needed_times
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Latency, Metric, Prometheus, Rate
from counterfault.proxy.measurement.samples import BAD, GOOD, Pair, Sample, columns_for

# Levels that are assumed before anything has been measured; `counterfault check` says so.
ASSUMED_BAD = 0.01
ASSUMED_SIGMA = 0.7
"""The sigma of a lognormal latency, whose p99 is then five times its median."""
_ASSUMED_MEDIAN = 0.1
_NORMAL = NormalDist()
# The events of an assumed cohort: enough for rare ones to be more than none.
_MADE_UP = 6_400
_ALIKE = Cohorts.model_validate({"experiment": "50%", "control": "50%"})


def needed(comparison: Comparison) -> int | None:
    """Return how many events the smaller cohort needs, if both are like control; None: unknown."""
    return _needed(comparison.metric, comparison.pair.control, comparison.threshold)


def expected(metric: Metric, threshold: Threshold, bad: float = ASSUMED_BAD) -> int:
    """Return how many events each cohort needs, assuming a level and independent requests.

    `bad`: the share of bad events in control, 0 to 1; only for metrics that are such shares.
    """
    found = _needed(metric, _made_up(metric, bad), threshold)
    return _MADE_UP if found is None else found


def expected_users(metric: Metric, bad: float = ASSUMED_BAD) -> int | None:
    """Return how many users each cohort needs, assuming a level; None for a rate.

    With fewer, chance may give the cohort no user of those few whose harm makes the tolerance.
    """
    if metric.rate is not None or metric.prometheus is not None:
        return None  # the users of a rate are in its variance
    made_up = _made_up(metric, bad)
    alike = signal(metric, Pair(made_up, made_up), _ALIKE)
    return users_for(alike.reach) if alike is not None else None


def _made_up(metric: Metric, bad: float) -> Sample:
    shares = _column_shares(metric, bad) * (_MADE_UP / REPLICATES)
    return Sample(np.tile(shares, (REPLICATES, 1)))


def _needed(metric: Metric, sample: Sample, threshold: Threshold) -> int | None:
    alike = signal(metric, Pair(sample, sample), _ALIKE)
    if alike is None:
        return None
    events = sample.events * needed_times(alike, threshold.within)
    return ceil(events) if isfinite(events) else None


def _column_shares(metric: Metric, bad: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the share of events in each column; shape (columns,)."""
    shares = np.zeros(columns_for(metric))
    match metric.kind:
        case Latency(cells=cells):
            places = np.log(np.array(cells.bounds) / _ASSUMED_MEDIAN) / ASSUMED_SIGMA
            below = np.array([_NORMAL.cdf(float(z)) for z in places])
            shares[:] = np.diff(below, prepend=0.0, append=1.0)
        case Rate() | Prometheus():
            shares[GOOD] = 1.0
        case _:
            shares[[GOOD, BAD]] = 1 - bad, bad
    return shares
