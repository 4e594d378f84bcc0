"""The states of this sidecar's runs: a move is committed to disk before anything acts on it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.fault_budget import RUNS, Budget
from counterfault.proxy.experiments import lifecycle
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, Event, Reason, Run, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.models.run_summary import RecordedSummary
from counterfault.proxy.runs.evaluation import Evaluation
from counterfault.proxy.runs.store import RunStore

log = logging.getLogger("counterfault")


_NOT_EVALUATED = Evaluation()


class RunRegistry:
    """Holds every run's state. `clock` returns monotonic seconds, `wall` Unix seconds.

    While `store` is not open no run starts; stops work all the same.
    """

    def __init__(
        self,
        store: RunStore,
        budget: Budget,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.store = store
        self.runs: dict[str, Run] = {}
        """The present run of each experiment, by the experiment's name."""
        self._budget = budget
        self._clock, self._wall = clock, wall
        self._slots: dict[tuple[str, int], int] = {}
        """Where in the budget each live run counts its faults."""
        self._configurations: Mapping[str, dict[str, Any]] = {}

    def open(self) -> None:
        """Open the state directory unless it is open; runs of an earlier supervisor are over."""
        self.store.open({(name, run.run) for name, run in self.runs.items()})

    def advance_all(
        self,
        config: Config,
        evaluations: Mapping[str, Evaluation] = MappingProxyType({}),
        *,
        serving: bool = True,
    ) -> list[Run]:
        """Return every run that has to move, as it will be; `commit` makes it so.

        `evaluations` are by the experiment's name. No run starts unless traffic is served.
        """
        self._configurations = _configurations(config)
        moves = list(self._drop_removed({e.name: e.run for e in config.experiments}))
        for experiment in config.experiments:
            found = evaluations.get(experiment.name, _NOT_EVALUATED)
            run = self._next(experiment, found, serving)
            if run != self.runs[experiment.name]:
                moves.append(run)
        return moves

    def restart_edited(self, before: Config, after: Config) -> list[Run]:
        """Return the live runs whose meaning has changed, back in baseline without counts."""
        self._configurations = _configurations(after)
        meant = {(e.name, e.run): _meaning(before, e) for e in before.experiments}
        present = (
            (run, meant.get((run.experiment, run.run)) != _meaning(after, e))
            for e in after.experiments
            if (run := self.runs.get(e.name)) is not None and run.run == e.run
        )
        now = self._clock()
        found = (lifecycle.advance(run, Event.EDITED, now) for run, edited in present if edited)
        return [run for run in found if run != self.runs[run.experiment]]

    def commit(self, moves: Iterable[tuple[Run, RecordedSummary | None]]) -> list[Run]:
        """Write moved runs with their summaries, then act on them; return the ones that moved.

        A stop is acted upon even if it cannot be written, any other move is not.
        """
        return [run for run, summary in moves if self._commit(run, summary)]

    def remaining(self, experiment: Experiment) -> float | None:
        """Return the seconds until the run's present state ends by itself, None if it does not."""
        run = self.runs.get(experiment.name)
        return None if run is None else lifecycle.remaining(run, experiment, self._clock())

    def statuses(self) -> dict[str, RunStatus]:
        """Return the status of each run under way, by the name of its experiment."""
        return {
            name: RunStatus(run.epoch, self._slots[name, run.run])
            for name, run in self.runs.items()
            if run.state in LIVE
        }

    def _drop_removed(self, wanted: Mapping[str, int]) -> Iterator[Run]:
        """Forget the runs whose file is gone or has another number; yield the ones that end now."""
        for name, run in list(self.runs.items()):
            if wanted.get(name) != run.run:
                ended = lifecycle.advance(run, Event.STOP, self._clock(), Reason.REMOVED)
                del self.runs[name]
                self.store.past[name, run.run] = ended
                if ended != run:
                    yield ended

    def _next(self, experiment: Experiment, found: Evaluation, serving: bool) -> Run:
        key = (experiment.name, experiment.run)
        run = self.runs.setdefault(experiment.name, self.store.past.get(key) or Run(*key))
        now = self._clock()
        stops = [*found.stops, *self._stops(run, experiment)]
        if run.state is State.PENDING and not stops and self._may_start(experiment, serving):
            run = lifecycle.advance(run, Event.START, now)
        return lifecycle.tick(run, experiment, now, stops, found.held)

    def _may_start(self, experiment: Experiment, serving: bool) -> bool:
        able = self.store.is_open and serving
        return able and experiment.state == "running" and self._in_hours(experiment)

    def _in_hours(self, experiment: Experiment) -> bool:
        hours = experiment.guard.hours
        return hours is None or hours.open(datetime.fromtimestamp(self._wall(), UTC))

    def _stops(self, run: Run, experiment: Experiment) -> list[Reason]:
        if experiment.state == "paused":
            return [Reason.PAUSED] if run.state in LIVE else []
        found = [Reason.KILL_SWITCH] if self.store.killed else []
        if experiment.not_after and experiment.not_after.timestamp() <= self._wall():
            found.append(Reason.NOT_AFTER)
        if run.state in LIVE and not self._in_hours(experiment):
            found.append(Reason.HOURS)
        most, slot = experiment.guard.max_faults, self._slots.get((run.experiment, run.run))
        if most is not None and slot is not None and self._budget.performed(slot) >= most:
            found.append(Reason.MAX_FAULTS)
        return found

    def _commit(self, run: Run, summary: RecordedSummary | None) -> bool:
        configuration = self._configurations.get(run.experiment, {})
        written = self.store.commit(run, configuration, summary)
        if not written and run.state in LIVE:
            return False
        self._keep_slot(run)
        present = self.runs.get(run.experiment)
        if present is not None and present.run == run.run:
            self.runs[run.experiment] = run
        log.info("%s: %s %s", run.experiment, run.state, run.reason)
        return True

    def _keep_slot(self, run: Run) -> None:
        """Give a live run a slot of its own in the shared budget, and take an ended run's back."""
        key = (run.experiment, run.run)
        if run.state not in LIVE:
            self._slots.pop(key, None)
        elif key not in self._slots:
            taken = frozenset(self._slots.values())
            self._slots[key] = next(i for i in range(RUNS) if i not in taken)
            self._budget.clear_run(self._slots[key])


def _configurations(config: Config) -> dict[str, dict[str, Any]]:
    """Return what each experiment's file says, by the experiment's name."""
    return {e.name: raw for e, raw in zip(config.experiments, config.raw_experiments, strict=True)}


def _meaning(config: Config, experiment: Experiment) -> tuple[object, ...]:
    """Return what a run's counts are about; if it changes, its counts are discarded."""
    server, metrics = config.sidecar.prometheus, experiment.steady_state
    asked = server is not None and any(m.prometheus is not None for m in metrics)
    return (
        config.sidecar.unit,
        experiment.cohorts,
        experiment.faults,
        metrics,
        server.url if server is not None and asked else None,
    )
