"""The counts of one process."""

from collections import defaultdict

from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import (
    DoseKey,
    KeptEpochs,
    Key,
    OpenKey,
    RateKey,
    Rows,
    SteadyKey,
    UserKey,
)
from counterfault.proxy.measurement.under_way import UnderWay
from counterfault.proxy.measurement.user_sample import UserSample


class Counters:
    """Counts that only grow, and which of them changed since they were last taken.

    A count is forgotten only after it was taken, and only when no exchange can count under its key
    any more: since counts are cumulative, one that began again at 1 would be lost.

    Not for use by several threads.
    """

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self._changed: set[Key] = set()
        self._users: dict[tuple[str, str], UserSample] = {}
        self._under_way = UnderWay()
        self._rates: defaultdict[int, set[RateKey]] = defaultdict(set)
        """The keys of `counts` that have a slot, by their slot."""
        self._kept: KeptEpochs | None = None
        """What to keep, while other counts are still here; else None."""
        self._held: frozenset[tuple[str, Epoch]] | None = None
        """The epochs of exchanges under way when counts were last forgotten; None: not since."""

    def add(self, key: Key, amount: float = 1) -> None:
        """Count `amount` more: events, or seconds under a `DurationSumKey`."""
        self.counts[key] = self.counts.get(key, 0) + amount
        self._changed.add(key)

    def add_to_rate(self, key: RateKey) -> None:
        """Count an event of a rate; its exchange is still under way."""
        self._rates[key.slot].add(key)
        self.add(key)

    def begin(self, key: OpenKey) -> None:
        """Count an exchange that begins now. Its epoch is kept until `end`."""
        self._under_way.begin(key)

    def end(self, key: OpenKey) -> None:
        """Count an exchange that has ended; all that it counts for must be counted already."""
        self._under_way.end(key)

    def count_user(self, experiment: str, revision: str, cohort: Cohort, user: int) -> None:
        """Count an enrolled user, by a hash below 2^32. One who was counted before is not again."""
        users = self._users.get((experiment, revision))
        if users is None:
            users = self._users[experiment, revision] = UserSample()
        if users.add(cohort, user):
            self._changed.add(UserKey(experiment, revision, cohort, user))

    def take_changed(self) -> Rows:
        """The counts that changed since the last call; forgets what cannot grow any more."""
        counts = self.counts
        rows: Rows = [
            (key, 1.0 if isinstance(key, UserKey) else counts[key]) for key in self._changed
        ]
        self._changed.clear()
        rows += self._under_way.take_changed()
        self._forget_slots()
        self._forget_epochs()
        return rows

    def everything(self) -> Rows:
        """All counts, with the users that are kept, for a supervisor that knows nothing yet."""
        users = [
            (UserKey(experiment, revision, cohort, user), 1.0)
            for (experiment, revision), users in self._users.items()
            for cohort in ENROLLED
            for user in users.of(cohort)
        ]
        return [*self.counts.items(), *users, *self._under_way.everything()]

    def forget_others(self, kept: KeptEpochs) -> None:
        """Keep the counts of these epochs and the users of their revisions; drop all others.

        They are dropped once they were taken and no exchange that began in their epoch is under
        way.
        """
        self._kept, self._held = kept, None

    def _forget_slots(self) -> None:
        if not self._rates:
            return
        oldest = self._under_way.oldest_slot()
        for slot in [slot for slot in self._rates if slot < oldest]:
            for key in self._rates.pop(slot):
                self.counts.pop(key, None)

    def _forget_epochs(self) -> None:
        """Drop what is not kept, unless nothing has ended that may still count there."""
        kept = self._kept
        if kept is None:
            return
        held = self._under_way.epochs()
        if held == self._held:
            return
        self._held = held
        revisions = {(experiment, epoch.revision) for experiment, epoch in held}
        late = False
        for key in [key for key in self.counts if not kept.keeps(key)]:
            if _may_grow(key, held, revisions):
                late = True
            else:
                del self.counts[key]
        for group in [group for group in self._users if not kept.has_revision(*group)]:
            if group in revisions:
                late = True
            else:
                del self._users[group]
        if not late and all(kept.has_epoch(*each) for each in held):
            self._kept = None


def _may_grow(
    key: Key, held: frozenset[tuple[str, Epoch]], revisions: set[tuple[str, str]]
) -> bool:
    """Whether an exchange that is under way may still count under this key."""
    match key:
        case SteadyKey() | RateKey():
            return (key.experiment, key.epoch) in held
        case DoseKey():
            return (key.experiment, key.epoch.revision) in revisions
        case _:
            return False
