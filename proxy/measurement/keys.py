"""The keys under which the data planes count, and what a fault may come to.

A key is a tuple of its labels and, last, its kind. Tuples hash fast, and turn into JSON
arrays when workers send them to the supervisor; `key_from_wire` makes keys of those again.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

from counterfault.proxy.experiments.lifecycle import Epoch

# Keys that are remembered. More than one run counts: 2 cohorts, 64 replicates, 161 latency buckets.
_REMEMBERED = 65536


class FaultResult(StrEnum):
    """What became of a fault. Every fault is planned, and then comes to one of the other three."""

    PLANNED = "planned"
    """The fault was drawn for a request that it may happen to."""
    PERFORMED = "performed"
    """The fault had its effect."""
    OVERFLOW = "overflow"
    """A limit was reached; the request passed without the fault."""
    FAILED = "failed"
    """The fault had no effect, as when the client left before it began."""


RESULTS = (FaultResult.PERFORMED, FaultResult.OVERFLOW, FaultResult.FAILED)
"""What a planned fault can come to."""


class RequestKey(NamedTuple):
    """Exchanges that have ended, by status class; see `counters.code_of`."""

    listener: str
    experiment: str
    """Empty for bystanders."""
    cohort: str
    code: str
    kind: Literal["requests"] = "requests"


class DurationKey(NamedTuple):
    """Exchanges that have ended, by the bucket of their duration in `DURATION_BUCKETS`."""

    listener: str
    experiment: str
    """Empty for bystanders."""
    cohort: str
    bucket: int
    kind: Literal["seconds"] = "seconds"


class DurationSumKey(NamedTuple):
    """The sum of the durations of exchanges, in seconds."""

    listener: str
    experiment: str
    """Empty for bystanders."""
    cohort: str
    kind: Literal["seconds_sum"] = "seconds_sum"


class FaultKey(NamedTuple):
    """Faults by what they came to, one of `RESULTS`; over all runs of an experiment."""

    experiment: str
    listener: str
    fault: str
    result: FaultResult
    kind: Literal["faults"] = "faults"


class DoseKey(NamedTuple):
    """How many faults of one rule, by its index, came to a result in one epoch of a run."""

    experiment: str
    epoch: Epoch
    rule: int
    result: FaultResult
    kind: Literal["dose"] = "dose"


class SteadyKey(NamedTuple):
    """Events of a steady-state metric, in one replicate of one cohort, with one outcome.

    `outcome` is `good`, `bad` or the index of a latency bucket; see `measurement.outcomes`.
    """

    experiment: str
    epoch: Epoch
    metric: str
    cohort: str
    replicate: int
    outcome: str | int
    kind: Literal["steady"] = "steady"


class RateKey(NamedTuple):
    """Events of a rate in one replicate of one cohort, by the slot in which the requests arrived.

    Cumulative, and counted when the exchange ends: only its end says whether its status counts.
    """

    experiment: str
    epoch: Epoch
    metric: str
    cohort: str
    replicate: int
    slot: int
    kind: Literal["rate"] = "rate"


class OpenKey(NamedTuple):
    """Enrolled exchanges that are under way, by the slot in which they began.

    The only key whose value is not cumulative: it is how many there are at the time of the report.
    """

    experiment: str
    epoch: Epoch
    """The epoch in which they began, to which all of their counts belong."""
    metrics: str
    """The names of the metrics whose match holds for the requests, joined by commas."""
    cohort: str
    replicate: int
    slot: int
    """See `measurement.under_way.slot_of`."""
    kind: Literal["open"] = "open"


class UserKey(NamedTuple):
    """One user of a revision of a run, as a hash below 2^32; see `measurement.user_sample`."""

    experiment: str
    revision: str
    cohort: str
    user: int
    kind: Literal["users"] = "users"


class InternalErrorKey(NamedTuple):
    """Errors of counterfault's own, by the part of it that failed."""

    where: str
    kind: Literal["internal"] = "internal"


type Key = (
    RequestKey
    | DurationKey
    | DurationSumKey
    | FaultKey
    | DoseKey
    | SteadyKey
    | RateKey
    | OpenKey
    | UserKey
    | InternalErrorKey
)
type Rows = list[tuple[Key, float]]
"""Counts by their keys, cumulative except for `OpenKey`; those of `DurationSumKey` are seconds."""


class KeptEpochs:
    """The epochs whose counts are still wanted: those of an experiment's present run."""

    def __init__(self, epochs: Iterable[tuple[str, Epoch]]) -> None:
        """`epochs`: names of experiments, each with an epoch to keep."""
        self._epochs = frozenset(epochs)
        self._revisions = frozenset((name, epoch.revision) for name, epoch in self._epochs)

    def has_epoch(self, experiment: str, epoch: Epoch) -> bool:
        """Whether this epoch is kept."""
        return (experiment, epoch) in self._epochs

    def has_revision(self, experiment: str, revision: str) -> bool:
        """Whether any epoch of this revision is kept."""
        return (experiment, revision) in self._revisions

    def keeps(self, key: Key) -> bool:
        """Whether a count is still wanted. Counts that are of no epoch always are."""
        match key:
            case SteadyKey() | RateKey() | OpenKey():
                return self.has_epoch(key.experiment, key.epoch)
            case DoseKey():
                return self.has_revision(key.experiment, key.epoch.revision)
            case UserKey():
                return self.has_revision(key.experiment, key.revision)
            case _:
                return True


def _interned[**Labels, K](made: Callable[Labels, K]) -> Callable[Labels, K]:
    """The same key for the same labels: to find one costs less than to build a tuple."""
    return cast("Callable[Labels, K]", lru_cache(_REMEMBERED)(made))


# For counting, where a key is needed for each request. Everywhere else, call the classes.
request_key = _interned(RequestKey)
duration_key = _interned(DurationKey)
duration_sum_key = _interned(DurationSumKey)
fault_key = _interned(FaultKey)
dose_key = _interned(DoseKey)
steady_key = _interned(SteadyKey)

_epoch = _interned(Epoch)
_OF_EPOCHS = frozenset({"dose", "steady", "rate", "open"})
_MAKERS: dict[str, Callable[..., Key]] = {
    "requests": request_key,
    "seconds": duration_key,
    "seconds_sum": duration_sum_key,
    "faults": fault_key,
    "dose": dose_key,
    "steady": steady_key,
    # These have slots, so that hardly any comes again.
    "rate": RateKey,
    "open": OpenKey,
    "users": UserKey,
    "internal": InternalErrorKey,
}


def key_from_wire(labels: list[Any]) -> Key:
    """The key that was sent as this JSON array. Raises KeyError if its kind is unknown."""
    kind = labels[-1]
    if kind in _OF_EPOCHS:
        labels[1] = _epoch(labels[1])
    return _MAKERS[kind](*labels)
