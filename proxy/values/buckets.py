"""Histogram bounds, in seconds."""

DURATION_BUCKETS = (*(0.001 * 2 ** (i / 2) for i in range(32)), 60.0)


LATENCY_GROWTH = 2 ** (1 / 8)


LATENCY_BUCKETS = tuple(1e-4 * 2 ** (i / 8) for i in range(160))
