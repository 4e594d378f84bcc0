"""The empirical distribution function of one cohort's latencies, from counts in cells.

A position is measured in widths of a cell: its whole part is the index of a cell, the rest says how
far into the cell it is, on a logarithmic scale, on which events are taken to be spread evenly.
"""

from bisect import bisect_right
from functools import lru_cache
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.analysis.replicate_variance import Share, unbiased
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.measurement.samples import Sample
from counterfault.proxy.values.buckets import LatencyCells

_ALL = np.ones(REPLICATES)


@lru_cache(16)
def _sides(columns: int) -> tuple[NDArray[np.float64], ...]:
    """Return for each cell four columns: 1 for those below it, for itself, above it, and for all.

    Each has shape (columns, 4).
    """
    off = np.arange(columns) - np.arange(columns)[:, np.newaxis]
    each = np.stack([off < 0, off == 0, off > 0, np.isfinite(off)], axis=1).astype(np.float64)
    return tuple(rows.T for rows in each)


class LatencyCdf:
    """The distribution of a sample of latencies, for a quantile `q`, 0 to 1.

    `total` is the number of events, `columns` that of cells.
    """

    __slots__ = ("_below", "_counts", "_expected", "_others", "columns", "q", "total")

    def __init__(self, sample: Sample, q: float) -> None:
        self._counts = counts = sample.counts
        cells = _ALL.dot(counts)
        # Indexing a memoryview gives plain floats, which is faster than numpy's.
        self._below = below = np.add.accumulate(cells, 0, None, cells).data
        total: float = below[-1]
        self.q, self.total, self.columns = q, total, counts.shape[1]
        self._expected, self._others = q * total, (1 - q) * total

    def position(self) -> float:
        """Return the position of the quantile, in widths of a cell; there must be events."""
        cell = bisect_right(self._below, self._expected)
        low = self._below[cell - 1] if cell else 0.0
        found: float = cell + (self._expected - low) / (self._below[cell] - low)
        return found

    def below(self, position: float) -> float:
        """Return the number of events below a position."""
        return self._at(position)[2]

    def deviance(self, position: float) -> float:
        """Return half the deviance of the share below a position from q."""
        cell = int(position)
        try:
            low = self._below[cell - 1] if cell > 0 else 0.0
            hits = low + (position - cell) * (self._below[cell] - low)
            rest = self.total - hits
            return hits * log(hits / self._expected) + rest * log(rest / self._others)
        except (IndexError, ValueError):  # outside of the cells, or all events on one side
            return -self.total * log(self.q if self.below(position) else 1 - self.q)

    def split(self, position: float) -> Share:
        """Return the share of events below a position."""
        cell, part, hits = self._at(position)
        sides, total = self._counts.dot(_sides(self.columns)[cell]), self.total
        below, inside, above, every = sides.T.dot(sides).tolist()
        # By how much one event of each side moves its replicate away from the share.
        share = hits / total
        b, i, a = 1 - share, part - share, -share
        off = b * (b * below[0] + 2 * (i * below[1] + a * below[2]))
        off += i * (i * inside[1] + 2 * a * inside[2]) + a * a * above[2]
        return Share(total, hits, total * total / every[3], unbiased(off) / (total * total))

    def _at(self, position: float) -> tuple[int, float, float]:
        """Return the cell of a position, the part of it that is below, and the events below."""
        if not 0 <= position < self.columns:
            return (0, 0.0, 0.0) if position < 0 else (self.columns - 1, 1.0, self.total)
        cell = int(position)
        part, low = position - cell, self._below[cell - 1] if cell else 0.0
        return cell, part, low + part * (self._below[cell] - low)


def seconds(position: float, cells: LatencyCells) -> float:
    """Return a position as a duration in seconds, 100 us to the last bound.

    Outside of the bounds nothing but the bounds is known.
    """
    found = cells.bounds[0] * exp((position - 1) * cells.width)
    return min(max(found, cells.bounds[0]), cells.bounds[-1])
