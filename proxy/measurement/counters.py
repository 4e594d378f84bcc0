"""What a worker counts: under which keys, and in which buckets of durations."""

from bisect import bisect_left
from collections.abc import Callable

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.values.buckets import DURATION_BUCKETS, LATENCY_BUCKETS

type Key = tuple[str | int, ...]
"""The kind of count, then its labels; see the constructors below."""
type Rows = list[tuple[Key, float]]

# 1 ms * 2^(i/2), and one minute.
# 100 us * 2^(i/8): fine enough that a quantile's tolerance of 20 % is not lost in a bucket.
CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "error")
RESULTS = ("performed", "overflow", "failed")

REQUESTS, SECONDS, SECONDS_SUM = "requests", "seconds", "seconds_sum"
FAULTS, DOSE, STEADY, INTERNAL = "faults", "dose", "steady", "internal"
USERS = "users"


def code_of(status: int | None) -> str:
    """The `code` label: a status class, or `error` for an exchange without an answer."""
    return CODES[status // 100 - 1] if status is not None and 100 <= status <= 599 else "error"


def requests(listener: str, experiment: str, cohort: str, code: str) -> Key:
    return (REQUESTS, listener, experiment, cohort, code)


def seconds(listener: str, experiment: str, cohort: str, duration: float) -> Key:
    return (SECONDS, listener, experiment, cohort, bisect_left(DURATION_BUCKETS, duration))


def seconds_sum(listener: str, experiment: str, cohort: str) -> Key:
    return (SECONDS_SUM, listener, experiment, cohort)


def faults(experiment: str, listener: str, fault: str, result: str) -> Key:
    return (FAULTS, experiment, listener, fault, result)


def dose(experiment: str, epoch: str, rule: int, result: str) -> Key:
    """How often a rule of a run came to what; `result` may also be `planned`."""
    return (DOSE, experiment, epoch, rule, result)


def steady(
    experiment: str, epoch: str, metric: str, cohort: str, replicate: int, cell: str | int
) -> Key:
    """A steady-state event: `cell` is `good`, `bad` or the index of a latency bucket."""
    return (STEADY, experiment, epoch, metric, cohort, replicate, cell)


def user(experiment: str, edit: str, cohort: str, number: int) -> Key:
    """A user that a run has met, by a hash; see `measurement.user_sample`."""
    return (USERS, experiment, edit, cohort, number)


def latency_cell(duration: float) -> int:
    """The latency bucket, 0 to 160; 160 is what lies above the last bound."""
    return bisect_left(LATENCY_BUCKETS, duration)


def internal(where: str) -> Key:
    return (INTERNAL, where)


class Counters:
    """Counts of one process, with the cells that changed since they were last taken."""

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self._changed: set[Key] = set()
        self._users: dict[tuple[str, str], UserSample] = {}

    def add(self, key: Key, amount: float = 1) -> None:
        self.counts[key] = self.counts.get(key, 0) + amount
        self._changed.add(key)

    def meet(self, experiment: str, edit: str, cohort: Cohort, number: int) -> None:
        """A user has been enrolled, perhaps not for the first time."""
        users = self._users.get((experiment, edit))
        if users is None:
            users = self._users[experiment, edit] = UserSample()
        if users.add(cohort, number):
            self._changed.add(user(experiment, edit, cohort, number))

    def take_changed(self) -> Rows:
        """The changed cells with their cumulative values."""
        rows = [(key, self._value(key)) for key in self._changed]
        self._changed.clear()
        return [(key, value) for key, value in rows if value]

    def everything(self) -> Rows:
        met = [
            (user(experiment, edit, cohort, number), 1.0)
            for (experiment, edit), users in self._users.items()
            for cohort in (Cohort.CONTROL, Cohort.EXPERIMENT)
            for number in users.of(cohort)
        ]
        return [*self.counts.items(), *met]

    def forget(self, gone: Callable[[Key], bool]) -> None:
        """Drop cells that no longer mean anything, such as those of a discarded epoch."""
        for key in [key for key in self.counts if gone(key)]:
            del self.counts[key]
        for experiment, edit in list(self._users):
            if gone((USERS, experiment, edit)):
                del self._users[experiment, edit]

    def _value(self, key: Key) -> float:
        return 1.0 if key[0] == USERS else self.counts.get(key, 0)
