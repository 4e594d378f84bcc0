"""In which cell the product counts requests, found by asking it: its rules may change."""

from math import sqrt

import numpy as np

from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.outcomes import outcome_of
from counterfault.proxy.measurement.samples import column
from tests.simulate.crowds import Indexes
from tests.simulate.requests import Requests

_OK = 200
_FASTEST, _SLOWEST = 1e-6, 1e5
_KNOWN: dict[object, tuple[np.ndarray, Indexes]] = {}


def cells(metric: Metric, requests: Requests) -> Indexes:
    """Return the column of each request's cell, shape (requests,)."""
    found = _columns(metric, _OK, requests.seconds)
    if requests.failed.any():
        failed = requests.failed
        found[failed] = _columns(metric, None, requests.seconds[failed])
    return found


def _columns(metric: Metric, status: int | None, seconds: np.ndarray) -> Indexes:
    bounds, columns = _steps(metric, status)
    found: Indexes = columns[np.searchsorted(bounds, seconds)]
    return found


def _steps(metric: Metric, status: int | None) -> tuple[np.ndarray, Indexes]:
    key = (metric.kind, status)
    if key not in _KNOWN:
        _KNOWN[key] = _found(metric, status)
    return _KNOWN[key]


def _found(metric: Metric, status: int | None) -> tuple[np.ndarray, Indexes]:
    """The durations up to which each column reaches, and the columns, one more than durations.

    With the same status a longer duration never has a lower column.
    """

    def at(seconds: float) -> int:
        return column(outcome_of(metric, status, seconds))

    bounds: list[float] = []
    columns = [at(_FASTEST)]
    while columns[-1] != at(_SLOWEST):
        low, high = bounds[-1] if bounds else _FASTEST, _SLOWEST
        while low < (middle := sqrt(low * high)) < high:
            low, high = (middle, high) if at(middle) <= columns[-1] else (low, middle)
        bounds.append(low)
        columns.append(at(high))
    return np.array(bounds), np.array(columns, dtype=np.int64)
