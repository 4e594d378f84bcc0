"""The counts of all workers, as one sum that never goes down."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.measurement.counters import STEADY, USERS, Key
from counterfault.proxy.measurement.samples import Counts, Sample, cells_of, column
from counterfault.proxy.measurement.user_sample import UserSample

type Group = tuple[str | int, ...]
"""What a sample is of: experiment, epoch, metric and cohort; or users: experiment and edit."""


class Totals:
    """Counts of all workers that ever were; a dead incarnation's last word stays in the sum."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[Key, float]] = {}
        self._sum: dict[Key, float] = {}
        self._counts: dict[Group, Counts] = {}
        self._samples: dict[Group, Sample] = {}
        """Copies of counts that have not changed since."""
        self._users: defaultdict[Group, UserSample] = defaultdict(UserSample)

    def update(self, incarnation: str, rows: Iterable[tuple[Key, float]]) -> None:
        """Take cumulative values; one that is lower than before is late and is ignored."""
        part = self._parts.setdefault(incarnation, {})
        for key, value in rows:
            if key[0] == USERS:
                _, experiment, edit, cohort, number = key
                self._users[experiment, edit].add(Cohort(str(cohort)), int(number))
                continue
            gain = value - part.get(key, 0)
            if gain > 0:
                part[key] = value
                self._add(key, gain)

    def retire(self, incarnation: str) -> None:
        """The incarnation is gone: keep what it counted, forget who did."""
        self._parts.pop(incarnation, None)

    def get(self, key: Key) -> float:
        """The sum of a cell; steady-state events are in `sample`."""
        return self._sum.get(key, 0)

    def part(self, incarnation: str, key: Key) -> float:
        """What one incarnation has said of a key."""
        return self._parts.get(incarnation, {}).get(key, 0)

    def sample(self, experiment: str, epoch: str, metric: str, cohort: str, cells: int) -> Sample:
        """A steady-state metric's events so far, which stays as it is; the same until it grows."""
        group = (experiment, epoch, metric, cohort)
        found = self._samples.get(group)
        if found is None:
            counts = self._counts.get(group)
            if counts is None:
                return _nothing(cells)
            counts = counts.copy()
            counts.flags.writeable = False
            found = self._samples[group] = Sample(counts)
        return found

    def users(self, experiment: str, edit: str) -> UserSample:
        """The users that a run has met."""
        return self._users.get((experiment, edit)) or UserSample()

    def forget(self, gone: Callable[[Key], bool]) -> None:
        for cells in (self._sum, *self._parts.values()):
            for key in [key for key in cells if gone(key)]:
                del cells[key]
        for group in [group for group in self._counts if gone((STEADY, *group))]:
            del self._counts[group]
            self._samples.pop(group, None)
        for group in [group for group in self._users if gone((USERS, *group))]:
            del self._users[group]

    def _add(self, key: Key, gain: float) -> None:
        if key[0] != STEADY:
            self._sum[key] = self._sum.get(key, 0) + gain
            return
        group, replicate, cell = key[1:5], key[5], key[6]
        counts = self._counts.get(group)
        if counts is None:
            counts = self._counts[group] = Sample.empty(cells_of(cell)).counts
        counts[int(replicate), column(cell)] += gain
        self._samples.pop(group, None)


@cache
def _nothing(cells: int) -> Sample:
    found = Sample.empty(cells)
    found.counts.flags.writeable = False
    return found
