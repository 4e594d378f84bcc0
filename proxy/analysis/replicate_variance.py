"""How many events a cohort has, and how much they vary between its replicates.

Users are spread over the replicates: what the events of one user have in common, they vary by. The
variance of a ratio is the delta method's (Deng, Lu & Qin 2021), the effective number of replicates
Carter, Schnepel and Steigerwald's (REStat 2017).

This is done every second for every metric, and a call of numpy costs as much as twenty operations
on floats (`@` twice as much as `dot`): numpy sums products over the replicates, floats do the rest.
Of whole numbers they are exact; what cancels then is about as many digits as the events of a
replicate have.
"""

from dataclasses import dataclass

import numpy as np

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.measurement.samples import Counts

_ALL = np.ones(REPLICATES)
_UNBIASED = REPLICATES / (REPLICATES - 1)


@dataclass(frozen=True, slots=True)
class Events:
    """One cohort's events, and the sum of the squares of each replicate's."""

    total: float
    squares: float
    replicates: int = REPLICATES

    @property
    def clusters(self) -> float:
        """How many replicates of equal size would tell as much."""
        return self.total * self.total / self.squares if self.squares else 0.0

    @property
    def variance(self) -> float:
        """Of the total, from how its parts vary."""
        k = self.replicates
        return k / (k - 1) * max(self.squares - self.total * self.total / k, 0.0)


@dataclass(frozen=True, slots=True)
class Share:
    """One cohort's events, how many of them are hits, and how these vary."""

    total: float
    hits: float
    clusters: float
    variance: float
    """Of the share of hits."""


def events_of(counts: Counts) -> Events:
    """Good and bad events together: counts of shape (replicates, 2)."""
    good, bad = _totals(counts)
    gg, gb, bb = _products(counts)
    return Events(good + bad, gg + 2 * gb + bb, len(counts))


def share_of(counts: Counts, column: int) -> Share:
    """Of good and bad events; `column` says which of them are hits."""
    totals = good, bad = _totals(counts)
    total = good + bad
    if not total:
        return Share(0.0, 0.0, 0.0, 0.0)
    gg, gb, bb = _products(counts)
    # By how much a good event, and a bad one, brings its replicate off the share of good ones.
    g, b = bad / total, -good / total
    off = g * (g * gg + 2 * b * gb) + b * b * bb
    clusters = total * total / (gg + 2 * gb + bb)
    return Share(total, totals[column], clusters, unbiased(off) / (total * total))


def unbiased(squares: float) -> float:
    """The variance of a sum over the replicates, by the squares of what each is off its share."""
    return _UNBIASED * squares if squares > 0 else 0.0


def clusters_of(counts: Counts) -> float:
    """How many replicates of equal size would tell as much, of any kind of counts."""
    each = counts.sum(axis=1)
    squares = float(each.dot(each))
    return float(each.sum()) ** 2 / squares if squares else 0.0


def _totals(counts: Counts) -> list[float]:
    """Of good and of bad events, over the replicates."""
    found: list[float] = _ALL[: len(counts)].dot(counts).tolist()
    return found


def _products(counts: Counts) -> tuple[float, float, float]:
    """The sums over the replicates of good * good, good * bad and bad * bad."""
    (gg, gb), (_, bb) = counts.T.dot(counts).tolist()
    return gg, gb, bb
