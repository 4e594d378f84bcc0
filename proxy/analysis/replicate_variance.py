"""The number of events of a cohort, and their variance between its replicates.

Users are spread over the replicates, so that the variance between replicates includes what the
events of one user have in common. The variance of a ratio is that of the delta method (Deng, Lu &
Qin 2021); the effective number of replicates is that of Carter, Schnepel & Steigerwald (Review of
Economics and Statistics 2017).

This is computed every second for every metric, and a call of numpy costs as much as twenty
operations on floats (`@` twice as much as `dot`). So numpy sums products over the replicates, and
floats do the rest. The sums are exact, being whole numbers; the subtractions after them lose about
as many digits as the number of events in a replicate has.
"""

from dataclasses import dataclass

import numpy as np

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.measurement.samples import Counts

_ALL = np.ones(REPLICATES)
_UNBIASED = REPLICATES / (REPLICATES - 1)


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one cohort.

    `squares` is the sum over its replicates of the squared number of events.
    """

    total: float
    squares: float
    replicates: int = REPLICATES

    @property
    def clusters(self) -> float:
        """The effective number of replicates: as many of equal size have the same information."""
        return self.total * self.total / self.squares if self.squares else 0.0

    @property
    def variance(self) -> float:
        """The variance of the total, estimated between the replicates."""
        k = self.replicates
        return k / (k - 1) * max(self.squares - self.total * self.total / k, 0.0)


@dataclass(frozen=True, slots=True)
class Share:
    """The events of one cohort, how many are hits, and its effective number of replicates."""

    total: float
    hits: float
    clusters: float
    variance: float
    """The variance of the share of hits, a fraction squared."""


def events_of(counts: Counts) -> Events:
    """Return good and bad events together, of counts of shape (replicates, 2)."""
    good, bad = _totals(counts)
    gg, gb, bb = _products(counts)
    return Events(good + bad, gg + 2 * gb + bb, len(counts))


def share_of(counts: Counts, column: int) -> Share:
    """Return the share of hits, of counts of shape (replicates, 2); `column` has the hits."""
    totals = good, bad = _totals(counts)
    total = good + bad
    if not total:
        return Share(0.0, 0.0, 0.0, 0.0)
    gg, gb, bb = _products(counts)
    # By how much one good event, and one bad, moves its replicate away from the share of good ones.
    g, b = bad / total, -good / total
    off = g * (g * gg + 2 * b * gb) + b * b * bb
    clusters = total * total / (gg + 2 * gb + bb)
    return Share(total, totals[column], clusters, unbiased(off) / (total * total))


def unbiased(squares: float) -> float:
    """Return the variance of a sum over the replicates, from the sum of squared deviations."""
    return _UNBIASED * squares if squares > 0 else 0.0


def clusters_of(counts: Counts) -> float:
    """Return the effective number of replicates, of counts of shape (replicates, columns)."""
    each = counts.sum(axis=1)
    squares = float(each.dot(each))
    return float(each.sum()) ** 2 / squares if squares else 0.0


def _totals(counts: Counts) -> list[float]:
    """Return the number of good and of bad events."""
    found: list[float] = _ALL[: len(counts)].dot(counts).tolist()
    return found


def _products(counts: Counts) -> tuple[float, float, float]:
    """Return the sums over the replicates of good * good, good * bad and bad * bad."""
    (gg, gb), (_, bb) = counts.T.dot(counts).tolist()
    return gg, gb, bb
