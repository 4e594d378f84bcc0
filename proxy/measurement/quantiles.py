"""Quantiles of durations that were counted in buckets."""

from collections.abc import Mapping
from itertools import accumulate
from math import exp, log

from counterfault.proxy.values.buckets import DURATION_BUCKETS, LATENCY_BUCKETS


def duration_quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Seconds, on a straight line within the bucket as PromQL's histogram_quantile has it."""
    index, part = _place(counts, q)
    if index is None:
        return None
    if index == len(DURATION_BUCKETS):
        return DURATION_BUCKETS[-1]
    low = DURATION_BUCKETS[index - 1] if index else 0.0
    return low + (DURATION_BUCKETS[index] - low) * part


def latency_quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Seconds, on a logarithmic line within the bucket."""
    index, part = _place(counts, q)
    if index is None:
        return None
    if not 0 < index < len(LATENCY_BUCKETS):  # outside, the nearest bound is all that is known
        return LATENCY_BUCKETS[min(index, len(LATENCY_BUCKETS) - 1)]
    low, high = log(LATENCY_BUCKETS[index - 1]), log(LATENCY_BUCKETS[index])
    return exp(low + (high - low) * part)


def _place(counts: Mapping[int, int], q: float) -> tuple[int | None, float]:
    """The bucket in which a quantile lies, and how far into it, 0 to 1."""
    filled = sorted((i, n) for i, n in counts.items() if n > 0)
    below = 0.0
    rank = q * sum(n for _, n in filled)
    for (index, count), above in zip(filled, accumulate(n for _, n in filled), strict=True):
        if above >= rank:
            return index, (rank - below) / count
        below = above
    return None, 0.0
