"""The empirical distribution function of one cohort's latencies, from counts in buckets.

A position is measured in bucket widths: its whole part is the index of a bucket, the rest says how
far into the bucket it is, on a logarithmic scale, on which events are taken to be spread evenly.
"""

from bisect import bisect_right
from math import exp, log

import numpy as np

from counterfault.proxy.analysis.replicate_variance import unbiased
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.measurement.samples import LATENCY_COLUMNS, Sample
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

# The width of a bucket: the natural logarithm of the ratio of its bounds.
BUCKET_WIDTH = log(LATENCY_BUCKETS[1] / LATENCY_BUCKETS[0])
_ALL = np.ones(REPLICATES)
_OFF = np.arange(LATENCY_COLUMNS) - np.arange(LATENCY_COLUMNS)[:, np.newaxis]
# For each bucket four columns: 1 for the buckets below it, for itself, for those above, for all.
_EACH = np.stack([_OFF < 0, _OFF == 0, _OFF > 0, np.isfinite(_OFF)], axis=1).astype(np.float64)
_SIDES = tuple(rows.T for rows in _EACH)


class LatencyCdf:
    """The distribution of a sample of latencies, for a quantile `q`, 0 to 1.

    `total` is the number of events.
    """

    __slots__ = ("_below", "_counts", "_expected", "_others", "q", "total")

    def __init__(self, sample: Sample, q: float) -> None:
        self._counts = counts = sample.counts
        buckets = _ALL.dot(counts)
        # Indexing a memoryview gives plain floats, which is faster than numpy's.
        self._below = below = np.add.accumulate(buckets, 0, None, buckets).data
        total: float = below[-1]
        self.q, self.total = q, total
        self._expected, self._others = q * total, (1 - q) * total

    def position(self) -> float:
        """Return the position of the quantile, in bucket widths; there must be events."""
        bucket = bisect_right(self._below, self._expected)
        low = self._below[bucket - 1] if bucket else 0.0
        found: float = bucket + (self._expected - low) / (self._below[bucket] - low)
        return found

    def below(self, position: float) -> float:
        """Return the number of events below a position."""
        return self._at(position)[2]

    def deviance(self, position: float) -> float:
        """Return half the deviance of the share below a position from q."""
        bucket = int(position)
        try:
            low = self._below[bucket - 1] if bucket > 0 else 0.0
            hits = low + (position - bucket) * (self._below[bucket] - low)
            rest = self.total - hits
            return hits * log(hits / self._expected) + rest * log(rest / self._others)
        except (IndexError, ValueError):  # outside of the buckets, or all events on one side
            return -self.total * log(self.q if self.below(position) else 1 - self.q)

    def split(self, position: float) -> tuple[float, float]:
        """Return the effective replicates, and the variance of the share below a position."""
        bucket, part, hits = self._at(position)
        sides, total = self._counts.dot(_SIDES[bucket]), self.total
        below, inside, above, every = sides.T.dot(sides).tolist()
        # By how much one event of each side moves its replicate away from the share.
        share = hits / total
        b, i, a = 1 - share, part - share, -share
        off = b * (b * below[0] + 2 * (i * below[1] + a * below[2]))
        off += i * (i * inside[1] + 2 * a * inside[2]) + a * a * above[2]
        return total * total / every[3], unbiased(off) / (total * total)

    def _at(self, position: float) -> tuple[int, float, float]:
        """Return the bucket of a position, the part of it that is below, and the events below."""
        if not 0 <= position < LATENCY_COLUMNS:
            return (0, 0.0, 0.0) if position < 0 else (LATENCY_COLUMNS - 1, 1.0, self.total)
        bucket = int(position)
        part, low = position - bucket, self._below[bucket - 1] if bucket else 0.0
        return bucket, part, low + part * (self._below[bucket] - low)


def seconds(position: float) -> float:
    """Return a position as a duration in seconds; each outer bucket is taken for one width."""
    return LATENCY_BUCKETS[0] * exp((position - 1) * BUCKET_WIDTH)
