"""Samples: mergeable counts of one steady-state metric, cell by cell in each of 64 replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

type Counts = NDArray[np.float64]

GOOD, BAD = 0, 1
SHARE_COLUMNS = 2
FEWEST_REPLICATES = 8
# One below the first bound, one above the last.
LATENCY_COLUMNS = len(LATENCY_BUCKETS) + 1
_NAMES = {"good": GOOD, "bad": BAD}
_ALL_REPLICATES = np.ones(REPLICATES)


def column(cell: str | int) -> int:
    """The column of a cell as `tally.steady` names it."""
    return cell if isinstance(cell, int) else _NAMES[cell]


def columns_of(cell: str | int) -> int:
    """How many columns a sample with such a cell has."""
    return LATENCY_COLUMNS if isinstance(cell, int) else SHARE_COLUMNS


def columns_for(metric: Metric) -> int:
    """How many columns a metric's samples have."""
    return LATENCY_COLUMNS if metric.latency is not None else SHARE_COLUMNS


@dataclass(frozen=True, eq=False)  # no slots: what many ask for is computed once
class Sample:
    """One cohort's events: `counts` has shape (64, cells), good and bad or latency buckets.

    Whole numbers; as floats they are exact far enough, and multiply fast. Once they have been
    looked at they stay as they are.
    """

    counts: Counts

    @classmethod
    def empty(cls, cells: int = SHARE_COLUMNS) -> Sample:
        return cls(np.zeros((REPLICATES, cells), dtype=np.float64))

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.counts + other.counts)

    def __sub__(self, earlier: Sample) -> Sample:
        """What has come since, for cumulative counts."""
        return Sample(self.counts - earlier.counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def events(self) -> int:
        return int(self.by_column.sum())

    @property
    def bad(self) -> int:
        """Bad events; 0 for latencies, which are in buckets."""
        return int(self.by_column[BAD]) if self.counts.shape[1] == SHARE_COLUMNS else 0

    @cached_property
    def by_column(self) -> Counts:
        """Events in each cell, over all replicates."""
        # Many times as quick as a sum along the axis, and this is done every second.
        found: Counts = _ALL_REPLICATES.dot(self.counts)
        return found

    @property
    def outcomes(self) -> tuple[Counts, Counts]:
        """Good and bad events per replicate; latencies, being neither, are good."""
        if self.counts.shape[1] == SHARE_COLUMNS:
            return self.counts[:, GOOD], self.counts[:, BAD]
        return self.counts.sum(axis=1), np.zeros(len(self.counts))

    @property
    def cells(self) -> dict[int, int]:
        """The cells that are not empty, over all replicates."""
        sums = self.by_column
        filled = np.flatnonzero(sums)
        return dict(zip(filled.tolist(), sums[filled].astype(int).tolist(), strict=True))

    def to_json(self) -> dict[str, list[int]]:
        """The columns that are not empty, each with a count per replicate."""
        filled = np.flatnonzero(self.by_column)
        columns = self.counts[:, filled].astype(int).T.tolist()
        return dict(zip(map(str, filled.tolist()), columns, strict=True))

    @classmethod
    def from_json(cls, columns: Mapping[str, Sequence[int]], cells: int) -> Sample:
        sample = cls.empty(cells)
        for name, counts in columns.items():
            sample.counts[:, int(name)] = counts
        return sample


@dataclass(frozen=True, slots=True)
class Pair:
    """Both cohorts' samples of one metric."""

    control: Sample
    experiment: Sample

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.control + other.control, self.experiment + other.experiment)

    def __sub__(self, earlier: Pair) -> Pair:
        return Pair(self.control - earlier.control, self.experiment - earlier.experiment)

    @property
    def replicates(self) -> int:
        """How many replicates an application tells apart: 8, 16, 32 or 64, the first rows.

        With the 30 events of a signal, hardly ever are all of the upper half empty by chance.
        """
        used = np.flatnonzero((self.control.counts + self.experiment.counts).any(axis=1))
        rows = int(used[-1]) + 1 if len(used) else 0
        return max(FEWEST_REPLICATES, 1 << (rows - 1).bit_length()) if rows else REPLICATES

    @property
    def fewest(self) -> int:
        """The events of the cohort that has fewer."""
        return min(self.control.events, self.experiment.events)
