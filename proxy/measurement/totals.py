"""The counts of all processes, as one sum that never goes down."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import (
    KeptEpochs,
    Key,
    OpenKey,
    RateKey,
    SteadyKey,
    UserKey,
)
from counterfault.proxy.measurement.open_exchanges import OpenExchanges
from counterfault.proxy.measurement.rate_slots import RateSlots
from counterfault.proxy.measurement.samples import (
    GOOD,
    SHARE_COLUMNS,
    Counts,
    Sample,
    column,
    columns_of,
)
from counterfault.proxy.measurement.user_sample import UserSample

type _Group = tuple[str, Epoch, str, str]
"""What a sample is of: experiment, epoch, metric and cohort."""


class Totals:
    """Sums the counts of all processes that ever reported.

    A process is known by its `incarnation`, which no later process shares. What one that has died
    reported last stays in the sum.

    Events of rates wait in `rates` until a watermark passes the slot of their arrival; `settle`
    adds them to the samples.
    """

    def __init__(self) -> None:
        self._parts: dict[str, dict[Key, float]] = {}
        self._sum: dict[Key, float] = {}
        self._counts: dict[_Group, Counts] = {}
        self._samples: dict[_Group, Sample] = {}
        """Copies of counts that have not changed since."""
        self._users: defaultdict[tuple[str, str], UserSample] = defaultdict(UserSample)
        self._kept: KeptEpochs | None = None
        """What is kept; None: everything."""
        self.open = OpenExchanges()
        self._rates = RateSlots()

    def update(self, incarnation: str, rows: Iterable[tuple[Key, float]]) -> None:
        """Take counts of a process.

        A cumulative count that is lower than an earlier one came late, and is ignored; so is what
        belongs to an epoch that is not kept any more.
        """
        part, kept = self._parts.setdefault(incarnation, {}), self._kept
        for key, value in rows:
            if kept is not None and not kept.keeps(key):
                continue
            if isinstance(key, UserKey):
                self._users[key.experiment, key.revision].add(Cohort(key.cohort), key.user)
                continue
            if isinstance(key, OpenKey):
                self.open.update(incarnation, key, int(value))
                continue
            if isinstance(key, RateKey):
                self._rates.update(incarnation, key, value)
                continue
            gain = value - part.get(key, 0)
            if gain > 0:
                part[key] = value
                self._add(key, gain)

    def retire(self, incarnation: str) -> None:
        """Forget a process that has ended; its counts stay in the sum.

        The exchanges that it had under way were ended by us: they count as neither good nor bad.
        """
        self._parts.pop(incarnation, None)
        self.open.retire(incarnation)

    def settle(self, experiment: str, epoch: Epoch, before: int) -> None:
        """Add the events of rates whose requests arrived before a slot to the samples, finally.

        Exchanges that began before that slot and end later count for no rate any more.
        """
        for key, count in self._rates.settle(experiment, epoch, before):
            group = (experiment, epoch, key.metric, key.cohort)
            self._gain(group, key.replicate, GOOD, SHARE_COLUMNS, count)

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
            counts = counts.copy()
            counts.flags.writeable = False
            found = self._samples[group] = Sample(counts)
        return found

    def users(self, experiment: str, revision: str) -> UserSample:
        """The users that a revision of a run has enrolled."""
        return self._users.get((experiment, revision)) or UserSample()

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the counts of all epochs but these, and the users of all revisions but theirs.

        From now on what is reported of others is ignored.
        """
        self._kept = kept
        self.open.forget_others(kept)
        self._rates.forget_others(kept)
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
        columns = columns_of(key.outcome)
        self._gain(group, key.replicate, column(key.outcome), columns, gain)

    def _gain(self, group: _Group, replicate: int, at: int, columns: int, gain: float) -> None:
        counts = self._counts.get(group)
        if counts is None:
            counts = self._counts[group] = Sample.empty(columns).counts
        counts[replicate, at] += gain
        self._samples.pop(group, None)


@cache
def _nothing(columns: int) -> Sample:
    found = Sample.empty(columns)
    found.counts.flags.writeable = False
    return found
