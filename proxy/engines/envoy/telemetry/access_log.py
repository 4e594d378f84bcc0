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
    dose_key,
    fault_key,
)

# A line has the listener's name, then FIELDS; the last of these holds the Lua program's own fields.
_PROGRAM_FIELDS = 9
_FIELD_COUNT = 1 + len(FIELDS) - 1 + _PROGRAM_FIELDS
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
    experiment, epoch, cohort, replicate, user, metrics, path, status, faults = program_fields
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
        tuple(metrics.split(",")) if metrics else (),
        bytes.fromhex(path),
        tuple(_fault(text) for text in faults.split(",")) if faults else (),
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
        )
        if meaning is None:
            return
        self._count_faults(line, meaning)
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
        """Drop the counts of all epochs but these; the supervisor has them."""
        self._counts.forget_others(kept)


def _measured(line: AccessLogLine, meaning: EpochMeaning) -> tuple[Measured, ...]:
    """Return the metrics a line counts for; none if it did not go through its workers."""
    if meaning.detours.get(line.listener, line.upstream) != line.upstream:
        return ()
    named = (meaning.metrics[name] for name in line.metrics)
    return tuple(each for each in named if _regex_matches(each.metric, line.path))


def _regex_matches(metric: Metric, path: bytes) -> bool:
    """Whether the path matches the metric's regex, which Lua cannot check."""
    pattern = metric.match.regex
    return pattern is None or re.fullmatch(pattern.encode(), path) is not None
