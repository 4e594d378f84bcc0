"""Envoy's lines about enrolled exchanges, counted as a worker counts its own."""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from counterfault.proxy.engines.envoy.config.listeners import ESTABLISHED, FIELDS
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement import counters
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.outcomes import cell_of

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
    epoch: str
    cohort: str
    replicate: int
    user: int | None
    metrics: tuple[str, ...]
    path: bytes
    faults: tuple[tuple[int, str], ...]


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
        epoch,
        cohort,
        int(replicate),
        int(float(user)) if user else None,
        tuple(metrics.split(",")) if metrics else (),
        bytes.fromhex(path),
        tuple(_fault(said) for said in faults.split(",")) if faults else (),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _fault(said: str) -> tuple[int, str]:
    number, _, result = said.partition(":")
    if result not in counters.RESULTS:
        raise ValueError(f"no result: {result}")
    return int(number), result


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an epoch's lines are about."""

    metrics: Mapping[str, Metric]
    faults: tuple[str, ...]
    detours: Mapping[str, str]
    """Where a line must have gone through workers, and their address."""


class AccessLogCounter:
    """Lines to counts. Requests that went past the workers are counted, and compared with none."""

    def __init__(self, counts: Counters) -> None:
        self._counts = counts
        self._meanings: OrderedDict[tuple[str, str], Meaning] = OrderedDict()

    def expect(self, experiment: Experiment, epoch: str, detours: Mapping[str, str]) -> None:
        """Lines of this epoch may come from now on."""
        named = {m.name: m for m in experiment.steady_state}
        faults = tuple(rule.fault.name for rule in experiment.faults)
        self._meanings[experiment.name, epoch] = Meaning(named, faults, detours)
        while len(self._meanings) > _MOST_EPOCHS:
            self._meanings.popitem(last=False)

    def add(self, line: AccessLogLine) -> None:
        add, who = self._counts.add, (line.listener, line.experiment, line.cohort)
        add(counters.requests(*who, counters.code_of(line.status)))
        add(counters.seconds(*who, line.duration))
        add(counters.seconds_sum(*who), line.duration)
        meaning = self._meanings.get((line.experiment, line.epoch))
        if meaning is None:
            return
        self._faults(line, meaning)
        if line.user is not None:
            edit = line.epoch.rpartition(".")[0]
            self._counts.meet(line.experiment, edit, Cohort(line.cohort), line.user)
        if meaning.detours.get(line.listener, line.upstream) == line.upstream:
            self._steady(line, meaning)

    def _faults(self, line: AccessLogLine, meaning: Meaning) -> None:
        for number, result in line.faults:
            for said in ("planned", result):
                self._counts.add(counters.dose(line.experiment, line.epoch, number, said))
            name = meaning.faults[number]
            self._counts.add(counters.faults(line.experiment, line.listener, name, result))

    def _steady(self, line: AccessLogLine, meaning: Meaning) -> None:
        for name in line.metrics:
            metric = meaning.metrics[name]
            if _regex_matches(metric, line.path) and metric.match.counts(line.status):
                self._counts.add(
                    counters.steady(
                        line.experiment,
                        line.epoch,
                        name,
                        line.cohort,
                        line.replicate,
                        cell_of(metric, line.status, line.duration),
                    )
                )

    def forget(self, kept: Collection[tuple[str, str]]) -> None:
        """Drop counts of epochs that are over; the supervisor has them."""
        edits = {(name, epoch.rpartition(".")[0]) for name, epoch in kept}

        def gone(key: counters.Key) -> bool:
            if key[0] == counters.USERS:
                return (key[1], key[2]) not in edits
            return key[0] in (counters.STEADY, counters.DOSE) and (key[1], key[2]) not in kept

        self._counts.forget(gone)


def _regex_matches(metric: Metric, path: bytes) -> bool:
    """The one condition that Lua leaves to us."""
    pattern = metric.match.regex
    return pattern is None or re.fullmatch(pattern.encode(), path) is not None
