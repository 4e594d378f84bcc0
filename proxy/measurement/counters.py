"""The counts of one process."""

from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.measurement.keys import KeptEpochs, Key, Rows, UserKey
from counterfault.proxy.measurement.user_sample import UserSample


class Counters:
    """Counts that only grow, and which of them changed since they were last taken.

    Not for use by several threads.
    """

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self._changed: set[Key] = set()
        self._users: dict[tuple[str, str], UserSample] = {}

    def add(self, key: Key, amount: float = 1) -> None:
        """Count `amount` more: events, or seconds under a `DurationSumKey`."""
        self.counts[key] = self.counts.get(key, 0) + amount
        self._changed.add(key)

    def count_user(self, experiment: str, revision: str, cohort: Cohort, user: int) -> None:
        """Count an enrolled user, by a hash below 2^32. One who was counted before is not again."""
        users = self._users.get((experiment, revision))
        if users is None:
            users = self._users[experiment, revision] = UserSample()
        if users.add(cohort, user):
            self._changed.add(UserKey(experiment, revision, cohort, user))

    def take_changed(self) -> Rows:
        """The cumulative counts that changed since the last call."""
        counts = self.counts
        rows: Rows = [
            (key, count)
            for key in self._changed
            if (count := 1.0 if isinstance(key, UserKey) else counts.get(key, 0))
        ]
        self._changed.clear()
        return rows

    def everything(self) -> Rows:
        """All cumulative counts, with the users that are kept."""
        users = [
            (UserKey(experiment, revision, cohort, user), 1.0)
            for (experiment, revision), users in self._users.items()
            for cohort in ENROLLED
            for user in users.of(cohort)
        ]
        return [*self.counts.items(), *users]

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the counts of all epochs but these, and the users of all revisions but theirs."""
        for key in [key for key in self.counts if not kept.keeps(key)]:
            del self.counts[key]
        for group in [group for group in self._users if not kept.has_revision(*group)]:
            del self._users[group]
