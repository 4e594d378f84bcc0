"""Latencies of one cohort as shares of its events below each bound.

A place is a number of cells, with a part of the last one: within a cell events are spread evenly
on the logarithmic scale.
"""

from bisect import bisect_right
from math import exp, log

import numpy as np

from counterfault.proxy.analysis.replicate_variance import unbiased
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.measurement.samples import LATENCY_COLUMNS, Sample
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

# A cell's width, as a logarithm.
BUCKET_WIDTH = log(LATENCY_BUCKETS[1] / LATENCY_BUCKETS[0])
_ALL = np.ones(REPLICATES)
_OFF = np.arange(LATENCY_COLUMNS) - np.arange(LATENCY_COLUMNS)[:, np.newaxis]
# For each cell four columns: 1 for the cells below it, for itself, for those above, and for all.
_EACH = np.stack([_OFF < 0, _OFF == 0, _OFF > 0, np.isfinite(_OFF)], axis=1).astype(np.float64)
_SIDES = tuple(rows.T for rows in _EACH)


class LatencyCdf:
    """Of a sample of latencies, for a quantile q."""

    __slots__ = ("_below", "_counts", "_expected", "_others", "q", "total")

    def __init__(self, sample: Sample, q: float) -> None:
        self._counts = counts = sample.counts
        cells = _ALL.dot(counts)
        # Items of a memoryview are plain floats.
        self._below = below = np.add.accumulate(cells, 0, None, cells).data
        total: float = below[-1]
        self.q, self.total = q, total
        self._expected, self._others = q * total, (1 - q) * total

    def position(self) -> float:
        """Of the quantile."""
        cell = bisect_right(self._below, self._expected)
        low = self._below[cell - 1] if cell else 0.0
        found: float = cell + (self._expected - low) / (self._below[cell] - low)
        return found

    def below(self, place: float) -> float:
        """How many events are below a place."""
        return self._at(place)[2]

    def deviance(self, place: float) -> float:
        """Half of that of the share below a place from q."""
        cell = int(place)
        try:
            low = self._below[cell - 1] if cell > 0 else 0.0
            hits = low + (place - cell) * (self._below[cell] - low)
            rest = self.total - hits
            return hits * log(hits / self._expected) + rest * log(rest / self._others)
        except (IndexError, ValueError):  # beyond a bound, or all are on one side
            return -self.total * log(self.q if self.below(place) else 1 - self.q)

    def split(self, place: float) -> tuple[float, float]:
        """The effective replicates, and the variance between them of the share below a place."""
        cell, part, hits = self._at(place)
        sides, total = self._counts.dot(_SIDES[cell]), self.total
        below, inside, above, every = sides.T.dot(sides).tolist()
        # By how much an event of each side brings its replicate off the share.
        share = hits / total
        b, i, a = 1 - share, part - share, -share
        off = b * (b * below[0] + 2 * (i * below[1] + a * below[2]))
        off += i * (i * inside[1] + 2 * a * inside[2]) + a * a * above[2]
        return total * total / every[3], unbiased(off) / (total * total)

    def _at(self, place: float) -> tuple[int, float, float]:
        """The cell of a place, the part of it that is below, and the events that are."""
        if not 0 <= place < LATENCY_COLUMNS:
            return (0, 0.0, 0.0) if place < 0 else (LATENCY_COLUMNS - 1, 1.0, self.total)
        cell = int(place)
        part, low = place - cell, self._below[cell - 1] if cell else 0.0
        return cell, part, low + part * (self._below[cell] - low)


def seconds(place: float) -> float:
    """A place as a duration; the outer cells get one step each."""
    return LATENCY_BUCKETS[0] * exp((place - 1) * BUCKET_WIDTH)
