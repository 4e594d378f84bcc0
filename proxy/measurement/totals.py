"""The counts of all processes, as one sum that never goes down."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import KeptEpochs, Key, SteadyKey, UserKey
from counterfault.proxy.measurement.samples import Counts, Sample, column, columns_of
from counterfault.proxy.measurement.user_sample import UserSample

type _Group = tuple[str, Epoch, str, str]
"""What a sample is of: experiment, epoch, metric and cohort."""


class Totals:
    """Sums the counts of all processes that ever reported.

    A process is known by its `incarnation`, which no later process shares. What one that has died
    reported last stays in the sum.
    """

    def __init__(self) -> None:
        self._parts: dict[str, dict[Key, float]] = {}
        self._sum: dict[Key, float] = {}
        self._counts: dict[_Group, Counts] = {}
        self._samples: dict[_Group, Sample] = {}
        """Copies of counts that have not changed since."""
        self._users: defaultdict[tuple[str, str], UserSample] = defaultdict(UserSample)

    def update(self, incarnation: str, rows: Iterable[tuple[Key, float]]) -> None:
        """Take cumulative counts of a process.

        A count that is lower than an earlier one came late, and is ignored.
        """
        part = self._parts.setdefault(incarnation, {})
        for key, value in rows:
            if isinstance(key, UserKey):
                self._users[key.experiment, key.revision].add(Cohort(key.cohort), key.user)
                continue
            gain = value - part.get(key, 0)
            if gain > 0:
                part[key] = value
                self._add(key, gain)

    def retire(self, incarnation: str) -> None:
        """Forget a process that has ended; its counts stay in the sum."""
        self._parts.pop(incarnation, None)

    def get(self, key: Key) -> float:
        """The sum over all processes; 0 for steady-state events, which are in `sample`."""
        return self._sum.get(key, 0)

    def part(self, incarnation: str, key: Key) -> float:
        """The last count that one process reported."""
        return self._parts.get(incarnation, {}).get(key, 0)

    def sample(
        self, experiment: str, epoch: Epoch, metric: str, cohort: str, columns: int
    ) -> Sample:
        """The events of a steady-state metric so far, with so many columns.

        The sample never changes; the same one is returned until there are more events.
        """
        group = (experiment, epoch, metric, cohort)
        found = self._samples.get(group)
        if found is None:
            counts = self._counts.get(group)
            if counts is None:
                return _nothing(columns)
            counts = counts[:, :columns].copy()
            counts.flags.writeable = False
            found = self._samples[group] = Sample(counts)
        return found

    def users(self, experiment: str, revision: str) -> UserSample:
        """The users that a revision of a run has enrolled."""
        return self._users.get((experiment, revision)) or UserSample()

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the counts of all epochs but these, and the users of all revisions but theirs."""
        for counts in (self._sum, *self._parts.values()):
            for key in [key for key in counts if not kept.keeps(key)]:
                del counts[key]
        for group in [group for group in self._counts if not kept.has_epoch(*group[:2])]:
            del self._counts[group]
            self._samples.pop(group, None)
        for users in [users for users in self._users if not kept.has_revision(*users)]:
            del self._users[users]

    def _add(self, key: Key, gain: float) -> None:
        if not isinstance(key, SteadyKey):
            self._sum[key] = self._sum.get(key, 0) + gain
            return
        group = (key.experiment, key.epoch, key.metric, key.cohort)
        counts = self._counts.get(group)
        if counts is None:
            counts = self._counts[group] = Sample.empty(columns_of(key.outcome)).counts
        counts[key.replicate, column(key.outcome)] += gain
        self._samples.pop(group, None)


@cache
def _nothing(columns: int) -> Sample:
    found = Sample.empty(columns)
    found.counts.flags.writeable = False
    return found
