"""Cumulative counts by key, and how those of many workers become one that never goes down."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable

type Key = tuple[str | int, ...]
"""The kind of count, then its labels; see the constructors below."""
type Rows = list[tuple[Key, float]]

# 1 ms * 2^(i/2), and one minute.
DURATION_BUCKETS = (*(0.001 * 2 ** (i / 2) for i in range(32)), 60.0)
# 100 us * 2^(i/8): fine enough that a quantile's tolerance of 20 % is not lost in a bucket.
LATENCY_BUCKETS = tuple(1e-4 * 2 ** (i / 8) for i in range(160))
CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "error")
RESULTS = ("performed", "overflow", "failed")

REQUESTS, SECONDS, SECONDS_SUM = "requests", "seconds", "seconds_sum"
FAULTS, DOSE, STEADY, INTERNAL = "faults", "dose", "steady", "internal"


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


def latency_cell(duration: float) -> int:
    """The latency bucket, 0 to 160; 160 is what lies above the last bound."""
    return bisect_left(LATENCY_BUCKETS, duration)


def internal(where: str) -> Key:
    return (INTERNAL, where)


class Tally:
    """Counts of one process, with the cells that changed since they were last taken."""

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self._changed: set[Key] = set()

    def add(self, key: Key, amount: float = 1) -> None:
        self.counts[key] = self.counts.get(key, 0) + amount
        self._changed.add(key)

    def take_changed(self) -> Rows:
        """The changed cells with their cumulative values."""
        rows = [(key, self.counts[key]) for key in self._changed if key in self.counts]
        self._changed.clear()
        return rows

    def everything(self) -> Rows:
        return list(self.counts.items())

    def forget(self, gone: Callable[[Key], bool]) -> None:
        """Drop cells that no longer mean anything, such as those of a discarded epoch."""
        for key in [key for key in self.counts if gone(key)]:
            del self.counts[key]


class Totals:
    """Counts of all workers that ever were; a dead incarnation's last word stays in the sum."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[Key, float]] = {}
        self._sum: defaultdict[str | int, dict[Key, float]] = defaultdict(dict)

    def update(self, incarnation: str, rows: Iterable[tuple[Key, float]]) -> None:
        """Take cumulative values; one that is lower than before is late and is ignored."""
        part = self._parts.setdefault(incarnation, {})
        for key, value in rows:
            gain = value - part.get(key, 0)
            if gain > 0:
                part[key] = value
                kind = self._sum[key[0]]
                kind[key] = kind.get(key, 0) + gain

    def retire(self, incarnation: str) -> None:
        """The incarnation is gone: keep what it counted, forget who did."""
        self._parts.pop(incarnation, None)

    def get(self, key: Key) -> float:
        return self._sum[key[0]].get(key, 0)

    def part(self, incarnation: str, key: Key) -> float:
        """What one incarnation has said of a key."""
        return self._parts.get(incarnation, {}).get(key, 0)

    def of(self, *prefix: str | int) -> Rows:
        """All cells whose key begins so; the first part is the kind."""
        size = len(prefix)
        cells = self._sum[prefix[0]].items()
        return [(key, value) for key, value in cells if key[:size] == prefix]

    def forget(self, gone: Callable[[Key], bool]) -> None:
        for cells in (*self._sum.values(), *self._parts.values()):
            for key in [key for key in cells if gone(key)]:
                del cells[key]
