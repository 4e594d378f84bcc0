"""Envoy's lines about enrolled exchanges, counted as a worker counts its own."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from counterfault.proxy.engines.envoy.config.listeners import ESTABLISHED, FIELDS
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

# What one line is made of: the listener, Envoy's fields, and in the last of them these nine.
_OWN = 9
_COUNT = 1 + len(FIELDS) - 1 + _OWN
# Epochs whose meaning is remembered, for lines that come late.
_MOST_EPOCHS = 4096


@dataclass(frozen=True, slots=True)
class AccessLogLine:
    """One exchange. `status` None: the client got no whole answer."""

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


def parsed(text: bytes) -> AccessLogLine | None:
    """A line's exchange; None for the end of one that counted when it began. May be ValueError."""
    fields = text.decode("ascii").split("\t")
    if len(fields) != _COUNT:
        raise ValueError(f"{len(fields)} fields instead of {_COUNT}")
    listener, kind, code, _, whole, answered, elapsed, upstream, *own = fields
    experiment, epoch, cohort, replicate, user, metrics, path, status, faults = own
    if kind == ESTABLISHED:
        ended: tuple[int | None, float] = (int(code), _number(answered) / 1e6)
    elif code == "101":
        return None
    elif whole.isdecimal():
        ended = (int(status or code), int(whole) / 1e6)
    else:
        ended = (None, _number(elapsed) / 1e3)
    return AccessLogLine(
        listener,
        *ended,
        upstream,
        experiment,
        Epoch(epoch),
        cohort,
        int(replicate),
        int(float(user)) if user else None,
        tuple(metrics.split(",")) if metrics else (),
        bytes.fromhex(path),
        tuple(_fault(said) for said in faults.split(",")) if faults else (),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _fault(said: str) -> tuple[int, FaultResult]:
    number, _, result = said.partition(":")
    if result not in RESULTS:
        raise ValueError(f"no result: {result}")
    return int(number), FaultResult(result)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an epoch's lines are about."""

    metrics: Mapping[str, Measured]
    faults: tuple[str, ...]
    detours: Mapping[str, str]
    """Where a line must have gone through workers, and their address."""


class AccessLogCounter:
    """Lines to counts. Requests that went past the workers are counted, and compared with none."""

    def __init__(self, counts: Counters) -> None:
        self._counts = counts
        self._meanings: OrderedDict[tuple[str, Epoch], Meaning] = OrderedDict()

    def expect(self, experiment: Experiment, epoch: Epoch, detours: Mapping[str, str]) -> None:
        """Lines of this epoch may come from now on."""
        named = {m.name: Measured(m, epoch) for m in experiment.steady_state}
        faults = tuple(rule.fault.name for rule in experiment.faults)
        self._meanings[experiment.name, epoch] = Meaning(named, faults, detours)
        while len(self._meanings) > _MOST_EPOCHS:
            self._meanings.popitem(last=False)

    def add(self, line: AccessLogLine) -> None:
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
        self._faults(line, meaning)
        if line.user is not None:
            revision, cohort = line.epoch.revision, Cohort(line.cohort)
            self._counts.count_user(line.experiment, revision, cohort, line.user)

    def _faults(self, line: AccessLogLine, meaning: Meaning) -> None:
        for number, result in line.faults:
            for each in (FaultResult.PLANNED, result):
                self._counts.add(dose_key(line.experiment, line.epoch, number, each))
            name = meaning.faults[number]
            self._counts.add(fault_key(line.experiment, line.listener, name, result))

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the counts of all epochs but these; the supervisor has them."""
        self._counts.forget_others(kept)


def _measured(line: AccessLogLine, meaning: Meaning) -> tuple[Measured, ...]:
    """The metrics a line counts for; none if it went past the workers that should serve it."""
    if meaning.detours.get(line.listener, line.upstream) != line.upstream:
        return ()
    named = (meaning.metrics[name] for name in line.metrics)
    return tuple(each for each in named if _regex_matches(each.metric, line.path))


def _regex_matches(metric: Metric, path: bytes) -> bool:
    """The one condition that Lua leaves to us."""
    pattern = metric.match.regex
    return pattern is None or re.fullmatch(pattern.encode(), path) is not None
