"""Parses and counts Envoy's access-log lines of enrolled exchanges, as workers count theirs."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from counterfault.proxy.engines.envoy.config.access_logs import ESTABLISHED, FIELDS
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.exchanges import Measured, count_exchange
from counterfault.proxy.measurement.keys import (
    RESULTS,
    FaultResult,
    KeptEpochs,
    OpenKey,
    dose_key,
    fault_key,
    steady_key,
)

# A line has the listener's name, then FIELDS; the last of these holds the Lua program's own fields.
_PROGRAM_FIELDS = 10
_FIELD_COUNT = 1 + len(FIELDS) - 1 + _PROGRAM_FIELDS
_BEGIN_FIELD_COUNT = 8
# How many epochs are remembered, for lines that arrive after their end.
_MOST_EPOCHS = 4096


@dataclass(frozen=True, slots=True)
class AccessLogLine:
    """One enrolled exchange.

    Attributes:
        listener: The name of the listener.
        status: The status that the client got; None if it got no whole response.
        duration: Seconds to the last byte of the response, or to the end of the exchange.
        upstream: The address to which Envoy sent the request; `-` if to none.
        experiment: The name of the experiment.
        epoch: The run's epoch when the request arrived.
        cohort: The name of the cohort.
        replicate: The replicate of the unit, 0 to 63.
        user: The unit's number for counting users; None for a tagged request without a unit.
        metrics: The metrics whose match, but for its regex, holds for the request.
        path: The path for a metric's regex; empty if no metric has one.
        faults: The index of each fault's rule, and what the fault came to.
        slot: The slot in which it began, see `measurement.under_way`.
        begun: Whether its begin was written, too.
    """

    listener: str
    status: int | None
    duration: float
    upstream: str
    experiment: str
    epoch: Epoch
    cohort: str
    replicate: int
    user: int | None
    metrics: tuple[str, ...]
    path: bytes
    faults: tuple[tuple[int, FaultResult], ...]
    slot: int
    begun: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """The begin of an enrolled exchange; the attributes are those of `AccessLogLine`."""

    listener: str
    experiment: str
    epoch: Epoch
    cohort: str
    replicate: int
    metrics: tuple[str, ...]
    path: bytes
    slot: int


def parse_begin(text: bytes) -> Begin:
    """Return the begin that the Lua program has written. Raises ValueError for another form."""
    fields = text.decode("ascii").split("\t")
    if len(fields) != _BEGIN_FIELD_COUNT:
        raise ValueError(f"{len(fields)} fields instead of {_BEGIN_FIELD_COUNT}")
    listener, experiment, epoch, cohort, replicate, metrics, path, slot = fields
    return Begin(
        listener,
        experiment,
        Epoch(epoch),
        cohort,
        int(replicate),
        _names(metrics),
        bytes.fromhex(path),
        int(slot),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def parse_line(text: bytes) -> AccessLogLine | None:
    """Return the exchange of a line.

    None for the end of an upgraded connection: its exchange counted when it was established.

    Raises:
        ValueError: The line has another form.
    """
    fields = text.decode("ascii").split("\t")
    if len(fields) != _FIELD_COUNT:
        raise ValueError(f"{len(fields)} fields instead of {_FIELD_COUNT}")
    listener, kind, code, _, whole, answered, elapsed, upstream, *program_fields = fields
    experiment, epoch, cohort, replicate, user, metrics, path, status, faults, slot = program_fields
    if kind == ESTABLISHED:
        status_and_seconds: tuple[int | None, float] = (int(code), _number(answered) / 1e6)
    elif code == "101":
        return None
    elif whole.isdecimal():
        status_and_seconds = (int(status or code), int(whole) / 1e6)
    else:
        status_and_seconds = (None, _number(elapsed) / 1e3)
    return AccessLogLine(
        listener,
        *status_and_seconds,
        upstream,
        experiment,
        Epoch(epoch),
        cohort,
        int(replicate),
        int(float(user)) if user else None,
        _names(metrics),
        bytes.fromhex(path),
        tuple(_fault(text) for text in faults.split(",")) if faults else (),
        abs(int(slot)),
        int(slot) > 0,
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _fault(text: str) -> tuple[int, FaultResult]:
    number, _, result = text.partition(":")
    if result not in RESULTS:
        raise ValueError(f"no result: {result}")
    return int(number), FaultResult(result)


@dataclass(frozen=True, slots=True)
class EpochMeaning:
    """What the names and numbers in an epoch's lines stand for.

    Attributes:
        metrics: The metrics by their names.
        faults: The name of each rule's fault.
        detours: The workers' address, by the name of each listener whose requests take detours.
    """

    metrics: Mapping[str, Measured]
    faults: tuple[str, ...]
    detours: Mapping[str, str]


class AccessLogCounter:
    """Counts lines.

    A request that should have gone through workers but did not (they were down) is no event of a
    metric, since it got no fault. It counts as an exchange all the same.
    """

    def __init__(self, counts: Counters) -> None:
        self._counts = counts
        self._meanings: OrderedDict[tuple[str, Epoch], EpochMeaning] = OrderedDict()

    def count_into(self, counts: Counters) -> None:
        """Count into another object from now on; lines of exchanges before are still expected."""
        self._counts = counts

    def expect(self, experiment: Experiment, epoch: Epoch, detours: Mapping[str, str]) -> None:
        """Expect lines of this epoch from now on.

        Args:
            experiment: The experiment.
            epoch: The epoch of its run.
            detours: See `EpochMeaning.detours`.
        """
        named = {m.name: Measured(m, epoch) for m in experiment.steady_state}
        faults = tuple(rule.fault.name for rule in experiment.faults)
        self._meanings[experiment.name, epoch] = EpochMeaning(named, faults, detours)
        while len(self._meanings) > _MOST_EPOCHS:
            self._meanings.popitem(last=False)

    def begin(self, begun: Begin) -> None:
        """Count the begin of an exchange. Raises LookupError if it names an unknown metric."""
        meaning = self._meanings.get((begun.experiment, begun.epoch))
        if meaning is None:
            return
        for metric in _arrived(begun, meaning):
            if metric.metric.counts_arrivals:
                self._count_arrival(begun, metric)
        self._counts.begin(_open_key(begun, meaning))

    def _count_arrival(self, seen: Begin | AccessLogLine, each: Measured) -> None:
        labels = seen.experiment, seen.epoch, each.metric.name, seen.cohort, seen.replicate
        self._counts.add(steady_key(*labels, "good"))

    def add(self, line: AccessLogLine) -> None:
        """Count a line. Raises LookupError if it names an unknown metric or rule."""
        meaning = self._meanings.get((line.experiment, line.epoch))
        count_exchange(
            self._counts,
            line.listener,
            line.experiment,
            line.cohort,
            line.status,
            line.duration,
            line.replicate,
            () if meaning is None else _measured(line, meaning),
            line.slot,
        )
        if meaning is None:
            return
        self._count_faults(line, meaning)
        if line.begun:  # last: its counts may be forgotten from now on
            self._counts.end(_open_key(line, meaning))
        else:
            for each in _arrived(line, meaning):
                if each.metric.counts_arrivals:
                    self._count_arrival(line, each)
        if line.user is not None:
            revision, cohort = line.epoch.revision, Cohort(line.cohort)
            self._counts.count_user(line.experiment, revision, cohort, line.user)

    def _count_faults(self, line: AccessLogLine, meaning: EpochMeaning) -> None:
        for number, result in line.faults:
            for each in (FaultResult.PLANNED, result):
                self._counts.add(dose_key(line.experiment, line.epoch, number, each))
            name = meaning.faults[number]
            self._counts.add(fault_key(line.experiment, line.listener, name, result))

    def forget_others(self, kept: KeptEpochs) -> None:
        """Keep the counts of these epochs and drop all others, see `Counters.forget_others`."""
        self._counts.forget_others(kept)


def _measured(line: AccessLogLine, meaning: EpochMeaning) -> tuple[Measured, ...]:
    """Return the metrics a line counts for; none if it did not go through its workers."""
    if meaning.detours.get(line.listener, line.upstream) != line.upstream:
        return ()
    return _arrived(line, meaning)


def _arrived(seen: Begin | AccessLogLine, meaning: EpochMeaning) -> tuple[Measured, ...]:
    """Return the metrics whose match holds for the request."""
    named = (meaning.metrics[name] for name in seen.metrics)
    return tuple(each for each in named if _regex_matches(each.metric, seen.path))


def _open_key(seen: Begin | AccessLogLine, meaning: EpochMeaning) -> OpenKey:
    names = ",".join(each.metric.name for each in _arrived(seen, meaning))
    labels = seen.experiment, seen.epoch, names, seen.cohort, seen.replicate
    return OpenKey(*labels, seen.slot)


def _regex_matches(metric: Metric, path: bytes) -> bool:
    """Whether the path matches the metric's regex, which Lua cannot check."""
    pattern = metric.match.regex
    return pattern is None or re.fullmatch(pattern.encode(), path) is not None
