"""Samples: the counts of one steady-state metric, by replicate and outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.values.buckets import LEAST_RISE, latency_cells

type Counts = NDArray[np.float64]

GOOD, BAD = 0, 1
SHARE_COLUMNS = 2
FEWEST_REPLICATES = 8
# As many as any metric of latencies may have.
LATENCY_COLUMNS = latency_cells(LEAST_RISE).columns
_NAMES = {"good": GOOD, "bad": BAD}
_ALL_REPLICATES = np.ones(REPLICATES)


def column(outcome: str | int) -> int:
    """Return the column of an outcome, see `measurement.outcomes`."""
    return outcome if isinstance(outcome, int) else _NAMES[outcome]


def columns_of(outcome: str | int) -> int:
    """Return how many columns a sample with such an outcome has at most."""
    return LATENCY_COLUMNS if isinstance(outcome, int) else SHARE_COLUMNS


def columns_for(metric: Metric) -> int:
    """Return how many columns the samples of a metric have."""
    return metric.latency.cells.columns if metric.latency is not None else SHARE_COLUMNS


@dataclass(frozen=True, eq=False)  # no slots: cached properties need a __dict__
class Sample:
    """The events of one cohort.

    `counts` has shape (64, columns): a row for each replicate, and columns for good and bad events,
    or for each latency bucket. They are whole numbers, as floats, which multiply fast and are exact
    up to 2^53. They must not change once a property has been read, since properties are cached.
    """

    counts: Counts

    @classmethod
    def empty(cls, columns: int = SHARE_COLUMNS) -> Sample:
        """Return a sample without events."""
        return cls(np.zeros((REPLICATES, columns), dtype=np.float64))

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.counts + other.counts)

    def __sub__(self, earlier: Sample) -> Sample:
        """The events since an earlier sample, where both are cumulative."""
        return Sample(self.counts - earlier.counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def events(self) -> int:
        """The number of all events."""
        return int(self.by_column.sum())

    @property
    def bad(self) -> int:
        """The number of bad events; 0 for latencies."""
        return int(self.by_column[BAD]) if self.counts.shape[1] == SHARE_COLUMNS else 0

    @cached_property
    def by_column(self) -> Counts:
        """Events in each column, over all replicates; shape (columns,)."""
        # Many times as fast as a sum along the axis, and this is done every second.
        found: Counts = _ALL_REPLICATES.dot(self.counts)
        return found

    @property
    def outcomes(self) -> tuple[Counts, Counts]:
        """Good and bad events in each replicate, shape (64,) each; latencies count as good."""
        if self.counts.shape[1] == SHARE_COLUMNS:
            return self.counts[:, GOOD], self.counts[:, BAD]
        return self.counts.sum(axis=1), np.zeros(len(self.counts))

    @property
    def cells(self) -> dict[int, int]:
        """Events by column, over all replicates; without empty columns."""
        sums = self.by_column
        filled = np.flatnonzero(sums)
        return dict(zip(filled.tolist(), sums[filled].astype(int).tolist(), strict=True))

    def to_json(self) -> dict[str, list[int]]:
        """The columns that are not empty, by number, each as a list of counts by replicate."""
        filled = np.flatnonzero(self.by_column)
        columns = self.counts[:, filled].astype(int).T.tolist()
        return dict(zip(map(str, filled.tolist()), columns, strict=True))

    @classmethod
    def from_json(cls, counts: Mapping[str, Sequence[int]], columns: int) -> Sample:
        """Return the sample of which `to_json` made `counts`, with so many columns."""
        sample = cls.empty(columns)
        for name, column in counts.items():
            sample.counts[:, int(name)] = column
        return sample


@dataclass(frozen=True, slots=True)
class Pair:
    """The samples of both cohorts for one metric."""

    control: Sample
    experiment: Sample

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.control + other.control, self.experiment + other.experiment)

    def __sub__(self, earlier: Pair) -> Pair:
        return Pair(self.control - earlier.control, self.experiment - earlier.experiment)

    @property
    def replicates(self) -> int:
        """How many replicates there are if an application counts by itself: 8, 16, 32 or 64.

        They are the first rows. With the 30 events that a signal needs, it hardly ever happens by
        chance that the upper half of the replicates in use is empty.
        """
        used = np.flatnonzero((self.control.counts + self.experiment.counts).any(axis=1))
        rows = int(used[-1]) + 1 if len(used) else 0
        return max(FEWEST_REPLICATES, 1 << (rows - 1).bit_length()) if rows else REPLICATES

    @property
    def fewest(self) -> int:
        """The number of events of the cohort that has fewer."""
        return min(self.control.events, self.experiment.events)
