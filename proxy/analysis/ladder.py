"""Latencies of one cohort as shares of its events below each bound.

A place is a number of cells, with a part of the last one: within a cell events are spread evenly
on the logarithmic scale.
"""

from bisect import bisect_right
from math import exp, log

import numpy as np

from proxy.analysis.spread import Events
from proxy.sample import LATENCY_CELLS, Sample
from proxy.tally import LATENCY_BUCKETS

# A cell's width, as a logarithm.
CELL = log(LATENCY_BUCKETS[1] / LATENCY_BUCKETS[0])
_ONES = np.ones(LATENCY_CELLS)
# Row i: the cells below cell i, and those above it. Copying one is quicker than filling another.
_BELOW = np.tril(np.ones((LATENCY_CELLS, LATENCY_CELLS)), -1)
_ABOVE = _BELOW.T.copy()


class Ladder:
    """Of a sample of latencies."""

    __slots__ = ("_below", "_counts", "_each", "total")

    def __init__(self, sample: Sample) -> None:
        # Items of a memoryview are plain floats.
        self._below = below = np.add.accumulate(sample.by_cell).data
        self.total: float = below[-1]
        self._counts = sample.counts

    def events(self) -> Events:
        each = self._each = self._counts.dot(_ONES)
        return Events(self.total, float(each.dot(each)))

    def place(self, share: float) -> float:
        """Below which place there is such a share of all events."""
        events = share * self.total
        cell = bisect_right(self._below, events)
        low = self._below[cell - 1] if cell else 0.0
        found: float = cell + (events - low) / (self._below[cell] - low)
        return found

    def below(self, place: float) -> float:
        """The share of all events that are below a place."""
        if not 0 <= place < LATENCY_CELLS:
            return 0.0 if place < 0 else 1.0
        cell = int(place)
        low: float = self._below[cell - 1] if cell else 0.0
        return (low + (place - cell) * (self._below[cell] - low)) / self.total

    def deviance(self, place: float, q: float) -> float:
        """Half of that of the share below a place from q."""
        below = self._below
        if 1 <= place < LATENCY_CELLS:  # mostly; and this is asked for most
            cell = int(place)
            low = below[cell - 1]
            share = (low + (place - cell) * (below[cell] - low)) / self.total
        else:
            share = self.below(place)
        if 0 < share < 1:
            rest = 1 - share
            return self.total * (share * log(share / q) + rest * log(rest / (1 - q)))
        return -self.total * log(q if share else 1 - q)

    def variance(self, place: float, events: Events) -> float:
        """Of the share below a place, from how it varies between replicates."""
        share = self.below(place)
        if not 0 < share < 1:
            return 0.0
        cell = int(place)
        part = place - cell
        if share < 0.5:
            cells = _BELOW[cell].copy()
            cells[cell] = part
        else:  # the share above varies alike
            share = 1 - share
            cells = _ABOVE[cell].copy()
            cells[cell] = 1 - part
        hits = self._counts.dot(cells)
        return events.share_variance(share, float(hits.dot(hits)), float(hits.dot(self._each)))


def seconds(place: float) -> float:
    """A place as a duration; the outer cells get one step each."""
    return LATENCY_BUCKETS[0] * exp((place - 1) * CELL)
