"""Counting an exchange that has ended: the same for all data planes."""

from collections.abc import Iterable
from dataclasses import dataclass

from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.keys import (
    OpenKey,
    RateKey,
    duration_key,
    duration_sum_key,
    request_key,
    steady_key,
)
from counterfault.proxy.measurement.outcomes import outcome_of
from counterfault.proxy.measurement.under_way import slot_of
from counterfault.proxy.values.buckets import duration_bucket

CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "error")
"""The `code` labels of the counts of exchanges."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A steady-state metric that one exchange counts for, and the epoch it counts in."""

    metric: Metric
    epoch: Epoch


def code_of(status: int | None) -> str:
    """The `code` label: a status class, or `error` for an exchange without a whole response."""
    return CODES[status // 100 - 1] if status is not None and 100 <= status <= 599 else "error"


def begin_exchange(
    counters: Counters,
    experiment: str,
    epoch: Epoch,
    cohort: str,
    replicate: int,
    measured: Iterable[Measured],
    at: float,
) -> OpenKey:
    """Count an enrolled exchange that begins, and the events that its arrival is.

    Args:
        counters: The counts to add it to.
        experiment: The experiment its unit is enrolled in.
        epoch: The epoch of the run, to which all of its counts will belong.
        cohort: The cohort of its unit.
        replicate: The replicate of its unit, 0 to 63.
        measured: The metrics whose match holds for the request.
        at: Now, in seconds of the monotonic clock.

    Returns:
        The key under which it is under way, for `Counters.end`.
    """
    names = []
    for each in measured:
        metric = each.metric
        names.append(metric.name)
        if metric.counts_arrivals:
            counters.add(steady_key(experiment, epoch, metric.name, cohort, replicate, "good"))
    key = OpenKey(experiment, epoch, ",".join(names), cohort, replicate, slot_of(at))
    counters.begin(key)
    return key


def count_exchange(
    counters: Counters,
    listener: str,
    experiment: str,
    cohort: str,
    status: int | None,
    duration: float,
    replicate: int = 0,
    measured: Iterable[Measured] = (),
    slot: int = 0,
) -> None:
    """Count an exchange that has ended, once.

    Args:
        counters: The counts to add it to.
        listener: The name of the listener that accepted it.
        experiment: The experiment its unit is enrolled in; empty for a bystander.
        cohort: The cohort of its unit.
        status: The status that the client got; None if it got no whole response.
        duration: Seconds from the request's head to the last byte of the response.
        replicate: The replicate of its unit, 0 to 63.
        measured: The metrics whose match holds for the request; their status is looked at here.
        slot: The slot in which it began, see `measurement.under_way`.
    """
    counters.add(request_key(listener, experiment, cohort, code_of(status)))
    counters.add(duration_key(listener, experiment, cohort, duration_bucket(duration)))
    counters.add(duration_sum_key(listener, experiment, cohort), duration)
    for each in measured:
        metric = each.metric
        if metric.counts_arrivals or not metric.counts(status):
            continue
        if metric.rate is not None:
            key = RateKey(experiment, each.epoch, metric.name, cohort, replicate, slot)
            counters.add_to_rate(key)
            continue
        outcome = outcome_of(metric, status, duration)
        counters.add(steady_key(experiment, each.epoch, metric.name, cohort, replicate, outcome))
