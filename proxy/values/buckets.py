"""Bounds of the buckets in which durations are counted. All bounds are upper ones, in seconds."""

from bisect import bisect_left

DURATION_BUCKETS = (*(0.001 * 2 ** (i / 2) for i in range(32)), 60.0)
"""1 ms * 2^(i/2), and one minute: for the exported histograms."""

LATENCY_GROWTH = 2 ** (1 / 8)
"""Each bound of `LATENCY_BUCKETS` is this many times the one before."""

LATENCY_BUCKETS = tuple(1e-4 * 2 ** (i / 8) for i in range(160))
"""100 us * 2^(i/8): fine enough that a tolerance of 20 % spans several buckets."""


def duration_bucket(duration: float) -> int:
    """The index in `DURATION_BUCKETS` for a duration in seconds, 0 to 33; 33 is over a minute."""
    return bisect_left(DURATION_BUCKETS, duration)


def latency_bucket(duration: float) -> int:
    """The index in `LATENCY_BUCKETS` for seconds, 0 to 160; 160 is above the last bound."""
    return bisect_left(LATENCY_BUCKETS, duration)
