"""Up to which arrivals the cohorts' rates are compared, and when an exchange takes too long.

An exchange counts for a rate by its status, which only its end shows. If the fault delays the ends
of the experiment's exchanges, a comparison of what has ended so far shows fewer events, though as
many requests came. So both cohorts are compared up to one watermark: the arrival of the oldest
exchange that is still under way in either. An exchange that is under way for longer than the
horizon is not waited for; it counts as an exchange without a status, in both cohorts.
"""

import numpy as np

from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.faults.actions import Delay, Throttle
from counterfault.proxy.measurement.samples import Counts
from counterfault.proxy.measurement.under_way import slot_of
from counterfault.proxy.values.buckets import DURATION_BUCKETS
from counterfault.proxy.values.request import Request

HORIZON_MIN, HORIZON_MAX = 1.0, 30.0
"""Seconds."""
# The horizon is this many times as long as exchanges usually take.
_TIMES = 3.0
# Seconds after which all processes have reported what began.
_REPORTED = 1.0
# The quantile of a delay that counts as its longest.
_LONGEST = 0.999
_NO_REQUEST = Request(b"GET", b"", b"/", ())


def p99(durations: Counts) -> float | None:
    """Return the 99th percentile in seconds, as the upper bound of its bucket.

    Args:
        durations: Exchanges by the bucket of their duration in `DURATION_BUCKETS`, shape (34,).

    Returns:
        None without exchanges; infinity above the last bound.
    """
    total = durations.sum()
    if total <= 0:
        return None
    found = int(np.searchsorted(durations.cumsum(), 0.99 * total))
    return DURATION_BUCKETS[found] if found < len(DURATION_BUCKETS) else float("inf")


def horizon_of(usual: float | None, experiment: Experiment) -> float:
    """Return the horizon of a run, in seconds.

    Args:
        usual: The 99th percentile of both cohorts' durations in the baseline; None if unknown.
        experiment: The experiment, whose faults may delay exchanges by a known time.
    """
    added = _added_delay(experiment)
    if usual is None or added is None:
        return HORIZON_MAX
    return min(max(_TIMES * (usual + added), HORIZON_MIN), HORIZON_MAX)


def _added_delay(experiment: Experiment) -> float | None:
    """Return how many seconds the faults delay one exchange; None if there is no bound."""
    seconds = 0.0
    for rule in experiment.faults:
        match rule.fault.act(_NO_REQUEST, lambda: _LONGEST):
            case Delay(seconds=longest):
                seconds += longest
            case Throttle():
                return None
            case _:
                pass  # such as a hang: its exchange ends without a status anyway
    return seconds


def watermark(oldest: int | None, now: float, horizon: float) -> int:
    """Return the first slot whose arrivals are not compared yet.

    Args:
        oldest: The slot of the oldest exchange under way, None if there is none.
        now: The present time, in seconds of the monotonic clock.
        horizon: The horizon in seconds.
    """
    reported = slot_of(now - _REPORTED)
    if oldest is None:
        return reported
    return max(min(oldest, reported), slot_of(now - horizon))
