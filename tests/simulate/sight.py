"""What the sidecar sees of drawn requests at each second of a run: counts, users, what is open.

This is where traffic becomes what the deciding code takes, and all that it may be given.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair, columns_for
from tests.simulate.cells import cells
from tests.simulate.crowds import Indexes, Numbers
from tests.simulate.requests import Requests
from tests.simulate.traffic import Cohort, Traffic

SLOT = 0.5
"""Seconds of an arrival slot."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: both cohorts' events until then, and how many users were met."""

    second: int
    pair: Pair
    users: tuple[int, int]
    """Users of control and of the experiment that have sent anything, baseline included."""


class Sight:
    """One run as the sidecar sees it. An exchange belongs to the phase in which it began."""

    def __init__(
        self, metric: Metric, drawn: tuple[Requests, Requests], rng: np.random.Generator
    ) -> None:
        self._metric = metric
        self._cohorts = tuple(_Cohort(metric, requests, rng) for requests in drawn)

    def baseline(self, seconds: int) -> Iterator[Seen]:
        """Look at the baseline at each of its seconds; the counts are the same array each time."""
        yield from self._looks(np.arange(1 - seconds, 1), began_before=0)

    def running(self, seconds: int) -> Iterator[Seen]:
        """Look at each second while the faults are on; the counts are the same array each time."""
        yield from self._looks(np.arange(1, seconds + 1), began_before=None)

    def arrived(self, second: int) -> tuple[Indexes, Indexes]:
        """The requests of each cohort that began before a second, by slot, since the faults."""
        control, experiment = (cohort.by_slot(second, ended=None) for cohort in self._cohorts)
        return control, experiment

    def ended(self, second: int) -> tuple[Indexes, Indexes]:
        """Those of `arrived` that have ended, by the slot in which they began."""
        control, experiment = (cohort.by_slot(second, ended=True) for cohort in self._cohorts)
        return control, experiment

    def under_way(self, second: int) -> tuple[Indexes, Indexes]:
        """Those of `arrived` that have not ended, by the slot in which they began."""
        control, experiment = (cohort.by_slot(second, ended=False) for cohort in self._cohorts)
        return control, experiment

    def _looks(self, at: Indexes, began_before: float | None) -> Iterator[Seen]:
        control, experiment = (cohort.counted(at, began_before) for cohort in self._cohorts)
        met = [np.searchsorted(cohort.met, at, side="right").tolist() for cohort in self._cohorts]
        pairs = Traffic(control, experiment).pairs()
        for second, pair, *users in zip(at.tolist(), pairs, *met, strict=True):
            yield Seen(second, pair, (users[0], users[1]))


class _Cohort:
    """One cohort's requests in the order in which they end."""

    def __init__(self, metric: Metric, requests: Requests, rng: np.random.Generator) -> None:
        self._width = columns_for(metric)
        ended = requests.begun + requests.seconds
        order = np.argsort(ended)
        self._ended, self._begun = ended[order], requests.begun[order]
        replicates = rng.integers(0, REPLICATES, requests.count)[requests.users]
        self._cells = (replicates * self._width + cells(metric, requests))[order]
        first = np.full(requests.count, np.inf)
        np.minimum.at(first, requests.users, requests.begun)
        self.met: Numbers = np.sort(first)
        """When each user is met first, in order; inf for those who send nothing."""

    def counted(self, at: Indexes, began_before: float | None) -> Cohort:
        """The requests of one phase by when they end."""
        phase = self._begun >= 0 if began_before is None else self._begun < began_before
        ends = np.searchsorted(self._ended[phase], at, side="right")
        met = np.searchsorted(self.met, at, side="right")
        return Cohort(self._cells[phase], ends, self._width, met)

    def by_slot(self, second: int, ended: bool | None) -> Indexes:
        kept = (self._begun >= 0) & (self._begun < second)
        if ended is not None:
            kept &= (self._ended <= second) == ended
        slots = (self._begun[kept] / SLOT).astype(np.int64)
        found: Indexes = np.bincount(slots, minlength=round(second / SLOT))
        return found
