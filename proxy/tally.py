"""The keys that everything is counted under, and the buckets of durations."""

from bisect import bisect_left

type Key = tuple[str | int, ...]
"""The kind of count, then its labels; see the constructors below."""
type Rows = list[tuple[Key, float]]

# 1 ms * 2^(i/2), and one minute.
DURATION_BUCKETS = (*(0.001 * 2 ** (i / 2) for i in range(32)), 60.0)
# 100 us * 2^(i/8): fine enough that a quantile's tolerance of 20 % is not lost in a bucket.
LATENCY_GROWTH = 2 ** (1 / 8)
LATENCY_BUCKETS = tuple(1e-4 * 2 ** (i / 8) for i in range(160))
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
    """A user that a run has met, by a hash; see `proxy.users`."""
    return (USERS, experiment, edit, cohort, number)


def latency_cell(duration: float) -> int:
    """The latency bucket, 0 to 160; 160 is what lies above the last bound."""
    return bisect_left(LATENCY_BUCKETS, duration)


def internal(where: str) -> Key:
    return (INTERNAL, where)
