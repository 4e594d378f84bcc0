"""How many events a cohort has, and how much they vary between its replicates.

Users are spread over the replicates: what the events of one user have in common, they vary by. The
variance of a ratio is the delta method's (Deng, Lu & Qin 2021), the effective number of replicates
Carter, Schnepel and Steigerwald's (REStat 2017).

This is done every second for every metric, and a call of numpy costs as much as twenty operations
on floats (`@` twice as much as `dot`): numpy sums products over the replicates, floats do the rest.
Of whole numbers they are exact; what cancels then is about as many digits as the events of a
replicate have.
"""

from typing import NamedTuple

import numpy as np

from proxy.cohorts import REPLICATES
from proxy.sample import Counts

ALL_REPLICATES = np.ones(REPLICATES)


class Events(NamedTuple):
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

    def share_variance(self, share: float, squares: float, products: float) -> float:
        """Of a share of hits, by the sums of hits * hits and hits * events; best for a low one."""
        k, total = self.replicates, self.total
        off = squares - 2 * share * products + share * share * self.squares
        return k / (k - 1) * max(off, 0.0) / (total * total)


class Share(NamedTuple):
    """One cohort's events, how many of them are hits, and the variance of the share of these."""

    events: Events
    hits: float
    variance: float


def events_of(counts: Counts) -> Events:
    """Good and bad events together: counts of shape (replicates, 2)."""
    (good, bad), (gg, gb, bb) = _sums(counts)
    return Events(good + bad, gg + 2 * gb + bb, len(counts))


def share_of(counts: Counts, column: int) -> Share:
    """Of good and bad events; `column` says which of them are hits."""
    totals, (gg, gb, bb) = _sums(counts)
    good, bad = totals
    events = Events(good + bad, gg + 2 * gb + bb)
    if not events.total:
        return Share(events, 0.0, 0.0)
    # Both shares vary alike.
    rare, squares = (good, gg) if good < bad else (bad, bb)
    variance = events.share_variance(rare / events.total, squares, squares + gb)
    return Share(events, totals[column], variance)


def _sums(counts: Counts) -> tuple[list[float], tuple[float, float, float]]:
    """Over the replicates: of good and bad events, and of their products."""
    gg, gb, _, bb = counts.T.dot(counts).ravel().tolist()
    return ALL_REPLICATES[: len(counts)].dot(counts).tolist(), (gg, gb, bb)
