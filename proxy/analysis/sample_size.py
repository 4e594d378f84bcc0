"""How many events a metric needs until it can be said to be within its tolerance.

For the cohort that has fewer, if the fault has no effect; half of such runs need less. It is read
off a comparison of a cohort with its like, whose evidence grows as its events do.
"""

from math import ceil, isfinite
from statistics import NormalDist

import numpy as np

from counterfault.proxy.analysis.comparison import Comparison, Threshold, signal
from counterfault.proxy.analysis.sequential import needed_times
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Latency, Metric, Prometheus, Rate
from counterfault.proxy.measurement.samples import BAD, GOOD, Pair, Sample, columns_for
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

# What is assumed before anything has been measured; `check` says so.
ASSUMED_BAD = 0.01
ASSUMED_SIGMA = 0.7
"""Of a lognormal latency: its p99 is five times its median."""
_ASSUMED_MEDIAN = 0.1
_NORMAL = NormalDist()
# Events of a cohort that is made up: enough for rare ones to be more than nothing.
_MADE_UP = 6_400
_ALIKE = Cohorts.model_validate({"experiment": "50%", "control": "50%"})


def needed(comparison: Comparison) -> int | None:
    """Events that the smaller cohort needs, if both are as control has been; None: unknown."""
    return _needed(comparison.metric, comparison.pair.control, comparison.threshold)


def expected(metric: Metric, threshold: Threshold, bad: float = ASSUMED_BAD) -> int:
    """Events that each cohort needs, assuming a level and independent requests.

    `bad` is the share of bad events in control, for shares only.
    """
    made_up = Sample(np.tile(_cells(metric, bad) * (_MADE_UP / REPLICATES), (REPLICATES, 1)))
    found = _needed(metric, made_up, threshold)
    return _MADE_UP if found is None else found


def _needed(metric: Metric, sample: Sample, threshold: Threshold) -> int | None:
    alike = signal(metric, Pair(sample, sample), _ALIKE)
    if alike is None:
        return None
    events = sample.events * needed_times(alike, threshold.within)
    return ceil(events) if isfinite(events) else None


def _cells(metric: Metric, bad: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The share of each cell."""
    cells = np.zeros(columns_for(metric))
    match metric.kind:
        case Latency():
            places = np.log(np.array(LATENCY_BUCKETS) / _ASSUMED_MEDIAN) / ASSUMED_SIGMA
            below = np.array([_NORMAL.cdf(float(z)) for z in places])
            cells[:] = np.diff(below, prepend=0.0, append=1.0)
        case Rate() | Prometheus():
            cells[GOOD] = 1.0
        case _:
            cells[[GOOD, BAD]] = 1 - bad, bad
    return cells
