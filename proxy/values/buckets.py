"""Bounds of the buckets in which durations are counted. All bounds are upper ones, in seconds."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, floor, log

DURATION_BUCKETS = (*(0.001 * 2 ** (i / 2) for i in range(32)), 60.0)
"""1 ms * 2^(i/2), and one minute: for the exported histograms."""

LATENCY_GROWTH = 2 ** (1 / 8)
"""Each bound of `LATENCY_BUCKETS` is this many times the one before."""

LATENCY_BUCKETS = tuple(1e-4 * 2 ** (i / 8) for i in range(160))
"""100 us * 2^(i/8): what records of versions before 0.8 count in, and the demo."""

LEAST_RISE = LATENCY_GROWTH - 1
"""The least tolerance of a quantile: 9.05 %, for which there are 322 cells."""

_FIRST, _OCTAVES = 1e-4, 20
# Cells are about half as wide as this squared: between 4 % and 14 %.
_COARSE = 0.135


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class LatencyCells:
    """The cells in which a metric of latencies counts, aligned with its tolerance.

    A whole number of cells makes one tolerance, so that "so much longer than control" moves the
    edge of one cell to the edge of another: the shares on both sides are then exact. The number is
    even, so that half a tolerance is a whole number of cells, too.
    """

    growth: float
    """Each bound is this many times the one before."""
    per_tolerance: int
    """How many cells make one tolerance."""

    @cached_property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds in seconds, from 100 us to at least 104 s; the last cell has none."""
        return cell_bounds(self.growth)

    @property
    def columns(self) -> int:
        """The number of cells: one for each bound, and one above the last."""
        return len(self.bounds) + 1

    @cached_property
    def width(self) -> float:
        """The natural logarithm of `growth`."""
        return log(self.growth)

    def cell(self, duration: float) -> int:
        """Return the index of the cell of a duration in seconds."""
        return bisect_left(self.bounds, duration)

    @property
    def beyond(self) -> int:
        """The index of the last cell: of what took longer than all bounds, or failed."""
        return len(self.bounds)


def cell_bounds(growth: float) -> tuple[float, ...]:
    """Return the upper bounds of cells in seconds, each so many times the one before."""
    count = ceil(_OCTAVES * log(2) / log(growth)) + 1
    return tuple(_FIRST * growth**i for i in range(count))


@lru_cache
def latency_cells(rise: float) -> LatencyCells:
    """Return the cells for a tolerance, which is a fraction of control's quantile: 0.2 for 20%."""
    tolerance = log(1 + rise)
    cells = 2 * max(1, floor(tolerance / _COARSE))
    return LatencyCells((1 + rise) ** (1 / cells), cells)


def duration_bucket(duration: float) -> int:
    """The index in `DURATION_BUCKETS` for a duration in seconds, 0 to 33; 33 is over a minute."""
    return bisect_left(DURATION_BUCKETS, duration)


def latency_bucket(duration: float) -> int:
    """The index in `LATENCY_BUCKETS` for seconds, 0 to 160; 160 is above the last bound."""
    return bisect_left(LATENCY_BUCKETS, duration)
