"""Quantiles of durations that were counted in buckets.

`counts` has the number of events by the index of their bucket; `q` is 0 to 1.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import exp, log

from counterfault.proxy.values.buckets import DURATION_BUCKETS


def duration_quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Return a quantile in seconds, of counts by `DURATION_BUCKETS`; None without events.

    Within a bucket it is interpolated linearly, as by histogram_quantile of PromQL.
    """
    index, part = _position(counts, q)
    if index is None:
        return None
    if index == len(DURATION_BUCKETS):
        return DURATION_BUCKETS[-1]
    low = DURATION_BUCKETS[index - 1] if index else 0.0
    return low + (DURATION_BUCKETS[index] - low) * part


def latency_quantile(counts: Mapping[int, int], q: float, bounds: Sequence[float]) -> float | None:
    """Return a quantile in seconds, of counts by the cells of a metric; None without events.

    `bounds` are the upper bounds of the cells. Within a cell it is interpolated on a logarithmic
    scale.
    """
    index, part = _position(counts, q)
    if index is None:
        return None
    if not 0 < index < len(bounds):  # outside, the nearest bound is all that is known
        return bounds[min(index, len(bounds) - 1)]
    low, high = log(bounds[index - 1]), log(bounds[index])
    return exp(low + (high - low) * part)


def _position(counts: Mapping[int, int], q: float) -> tuple[int | None, float]:
    """Return the bucket in which a quantile lies, and how far into it, 0 to 1."""
    filled = sorted((i, n) for i, n in counts.items() if n > 0)
    below = 0.0
    rank = q * sum(n for _, n in filled)
    for (index, count), above in zip(filled, accumulate(n for _, n in filled), strict=True):
        if above >= rank:
            return index, (rank - below) / count
        below = above
    return None, 0.0
