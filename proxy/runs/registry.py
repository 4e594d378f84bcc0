"""The runs of this sidecar: each is committed to disk before anybody acts on it."""

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from counterfault.proxy.analysis.verdict import Findings, conclude
from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.fault_budget import RUNS, Budget
from counterfault.proxy.experiments import lifecycle
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, OVER, Event, Reason, Run, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.models.run_record import Point, RunRecord, Snapshot, TimelineEvent
from counterfault.proxy.models.run_summary import RecordedSummary
from counterfault.proxy.runs.history import History, HistoryError
from counterfault.proxy.runs.record import recorded
from counterfault.proxy.runs.summary import verdict_summary

log = logging.getLogger("counterfault")


class RunRegistry:
    """Holds every run's state. `clock` in monotonic seconds, `wall` in Unix seconds.

    Without a usable state directory (`error` says why) no run starts; stops work all the same.
    """

    def __init__(
        self,
        state_dir: Path,
        budget: Budget,
        clock: Callable[[], float],
        wall: Callable[[], float],
        failed: Callable[[str, BaseException], None],
        account: Callable[[Run], RecordedSummary | None] = lambda run: None,
        serving: Callable[[], bool] = lambda: True,
    ) -> None:
        """`account`: what there is to say of a run when it moves; `serving`: if runs may begin."""
        self.runs: dict[str, Run] = {}
        self.killed = False
        self.error = ""
        self._switched = False
        self._state_dir = state_dir
        self._budget = budget
        self._clock, self._wall, self._failed = clock, wall, failed
        self._account, self._serving = account, serving
        self._history: History | None = None
        self._past: dict[tuple[str, int], Run] = {}
        self._cells: dict[tuple[str, int], int] = {}
        self._raw: Mapping[str, dict[str, Any]] = {}

    @property
    def open(self) -> bool:
        return self._history is not None

    def find(self) -> None:
        """Open the state directory; whatever was under way there has been interrupted."""
        if self._history is not None:
            return
        try:
            history = History(self._state_dir)
            self._past = history.load()
            self._catch_up(history)
        except HistoryError as e:
            if str(e) != self.error:
                self._lost(e)
            return
        self._history, self.error = history, ""

    def _catch_up(self, history: History) -> None:
        """What happened while the directory could not be used is told now, stops above all."""
        known = {(name, run.run): run for name, run in self.runs.items()}
        for key, run in (self._past | known).items():
            ended = run
            if key not in known and run.state not in OVER:
                ended = replace(run, state=State.STOPPED, reason=Reason.INTERRUPTED)
            if ended.state in OVER and ended != self._past.get(key):
                account = self._account(ended) if key in known else _interrupted(history, ended)
                history.save(ended, self._raw.get(key[0], {}), self._wall(), account)
                self._past[key] = ended
        if self._switched:
            history.set_killed(self.killed)
            self._switched = False
        self.killed = history.killed()

    def close(self) -> None:
        if self._history is not None:
            self._history.close()
            self._history = None

    def switch(self, *, on: bool) -> None:
        """The kill switch; it survives restarts."""
        self.killed = on
        self._switched = self._history is None
        try:
            if self._history is not None:
                self._history.set_killed(on)
        except HistoryError as e:
            self._switched = True
            self._lost(e)

    def settle(
        self,
        config: Config,
        found: Mapping[str, Sequence[Reason]] = MappingProxyType({}),
        held: Container[str] = (),
    ) -> bool:
        """Bring every run to where it belongs now; True if any moved.

        `found` are reasons to stop, by experiment; `held` are those that are within tolerance.
        """
        self._raw = _raw(config)
        moved = self._drop_removed({e.name: e.run for e in config.experiments})
        for experiment in config.experiments:
            name = experiment.name
            moved |= self._commit(self._next(experiment, found.get(name, ()), name in held))
        return moved

    def edited(self, before: Config, after: Config) -> None:
        """Live runs whose meaning has changed go back to baseline and lose their counts."""
        self._raw = _raw(after)
        meant = {(e.name, e.run): _meaning(before, e) for e in before.experiments}
        for experiment in after.experiments:
            run = self.runs.get(experiment.name)
            if run is None or run.run != experiment.run:
                continue
            if meant.get((run.experiment, run.run)) != _meaning(after, experiment):
                self._commit(lifecycle.advance(run, Event.EDITED, self._clock()))

    def remaining(self, experiment: Experiment) -> float | None:
        """Seconds until the run's present state ends by itself."""
        run = self.runs.get(experiment.name)
        return None if run is None else lifecycle.remaining(run, experiment, self._clock())

    def timeline(self, experiment: str) -> list[TimelineEvent]:
        """What happened to the present run, oldest first; empty without a state directory."""
        run = self.runs.get(experiment)
        found = run and self._read(lambda h: h.timeline(run.experiment, run.run))
        return found or []

    def account(self, experiment: str) -> RecordedSummary | None:
        """What was last committed of the present run."""
        run = self.runs.get(experiment)
        return None if run is None else self._read(lambda h: h.account(run.experiment, run.run))

    def points(self, experiment: str) -> list[Point]:
        """The present run in points of time, oldest first."""
        run = self.runs.get(experiment)
        found = run and self._read(lambda h: h.points(run.experiment, run.run))
        return found or []

    def recorded(self, experiment: str, number: int | None = None) -> RunRecord | None:
        """A past run as reports tell it; None without a history. Raises NotRecorded."""
        return self._read(lambda h: recorded(h, experiment, number))

    def note(
        self,
        points: Iterable[tuple[Run, Snapshot]],
        accounts: Iterable[tuple[Run, RecordedSummary]],
    ) -> None:
        """Commit points and accounts of runs under way."""
        wall = self._wall()
        self._read(lambda history: history.note(points, accounts, wall))

    def live(self) -> dict[str, RunStatus]:
        """The status of each run under way, by the name of its experiment."""
        return {
            name: RunStatus(run.epoch, self._cells[name, run.run])
            for name, run in self.runs.items()
            if run.state in LIVE
        }

    def _drop_removed(self, wanted: Mapping[str, int]) -> bool:
        moved = False
        for name, run in list(self.runs.items()):
            if wanted.get(name) != run.run:
                moved |= self._commit(
                    lifecycle.advance(run, Event.STOP, self._clock(), Reason.REMOVED)
                )
                ended = self.runs.pop(name)
                self._past[name, ended.run] = ended
        return moved

    def _next(self, experiment: Experiment, found: Sequence[Reason], held: bool) -> Run:
        key = (experiment.name, experiment.run)
        run = self.runs.setdefault(experiment.name, self._past.get(key) or Run(*key))
        now = self._clock()
        stops = [*found, *self._stops(run, experiment)]
        if run.state is State.PENDING and not stops and self._may_start(experiment):
            run = lifecycle.advance(run, Event.START, now)
        return lifecycle.tick(run, experiment, now, stops, held)

    def _may_start(self, experiment: Experiment) -> bool:
        able = self.open and self._serving()
        return able and experiment.state == "running" and self._in_hours(experiment)

    def _in_hours(self, experiment: Experiment) -> bool:
        hours = experiment.guard.hours
        return hours is None or hours.open(datetime.fromtimestamp(self._wall(), UTC))

    def _stops(self, run: Run, experiment: Experiment) -> list[Reason]:
        if experiment.state == "paused":
            return [Reason.PAUSED] if run.state in LIVE else []
        found = [Reason.KILL_SWITCH] if self.killed else []
        if experiment.not_after and experiment.not_after.timestamp() <= self._wall():
            found.append(Reason.NOT_AFTER)
        if run.state in LIVE and not self._in_hours(experiment):
            found.append(Reason.HOURS)
        most, cell = experiment.guard.max_faults, self._cells.get((run.experiment, run.run))
        if most is not None and cell is not None and self._budget.performed(cell) >= most:
            found.append(Reason.MAX_FAULTS)
        return found

    def _commit(self, run: Run) -> bool:
        """Put a moved run on disk, then act on it; a stop is acted upon even if that fails."""
        if run == self.runs[run.experiment]:
            return False
        try:
            if self._history is not None:
                raw = self._raw.get(run.experiment, {})
                self._history.save(run, raw, self._wall(), self._account(run))
        except HistoryError as e:
            self._lost(e)
        if self._history is None and run.state in LIVE:
            return False
        self._keep_cell(run)
        self.runs[run.experiment] = run
        log.info("%s: %s %s", run.experiment, run.state, run.reason)
        return True

    def _keep_cell(self, run: Run) -> None:
        """A live run counts its faults in a cell of its own in the shared budget."""
        key = (run.experiment, run.run)
        if run.state not in LIVE:
            self._cells.pop(key, None)
        elif key not in self._cells:
            taken = frozenset(self._cells.values())
            self._cells[key] = next(i for i in range(RUNS) if i not in taken)
            self._budget.clear_run(self._cells[key])

    def _read[T](self, ask: Callable[[History], T]) -> T | None:
        """What the history answers; None without one."""
        try:
            return None if self._history is None else ask(self._history)
        except HistoryError as e:
            self._lost(e)
            return None

    def _lost(self, error: HistoryError) -> None:
        self.close()
        self.error = str(error)
        self._failed("history", error)


def _interrupted(history: History, run: Run) -> RecordedSummary | None:
    """The last account of a run that ended with its supervisor, with that as its verdict."""
    account = history.account(run.experiment, run.run)
    verdict = verdict_summary(conclude(run, Findings()))
    return account and replace(account, verdict=verdict)


def _raw(config: Config) -> dict[str, dict[str, Any]]:
    """What each experiment's file says."""
    return {e.name: raw for e, raw in zip(config.experiments, config.raw_experiments, strict=True)}


def _meaning(config: Config, experiment: Experiment) -> tuple[object, ...]:
    """What a run's counts are about; if it changes they are worth nothing."""
    server, metrics = config.sidecar.prometheus, experiment.steady_state
    asked = server is not None and any(m.prometheus is not None for m in metrics)
    return (
        config.sidecar.unit,
        experiment.cohorts,
        experiment.faults,
        metrics,
        server.url if server is not None and asked else None,
    )
