"""Runs and the kill switch on disk, for a registry that must work without the disk too."""

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterfault.proxy.analysis.verdict import Findings, conclude
from counterfault.proxy.experiments.lifecycle import OVER, Reason, Run, State
from counterfault.proxy.models.run_record import Point, RunRecord, Snapshot, TimelineEvent
from counterfault.proxy.models.run_summary import RecordedSummary
from counterfault.proxy.runs.history import History, HistoryError
from counterfault.proxy.runs.record import recorded
from counterfault.proxy.runs.summary import verdict_summary

type RunKey = tuple[str, int]
"""An experiment's name and the number of its run."""


class RunStore:
    """The history in the state directory while it can be used; `error` says why it cannot.

    Not for use by several threads. `wall` returns Unix seconds; `failed` is called with every
    error of the history.
    """

    def __init__(
        self,
        state_dir: Path,
        wall: Callable[[], float],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.killed = False
        """Whether the kill switch is on."""
        self.error = ""
        self.past: dict[RunKey, Run] = {}
        """Every run as it was on disk when the history was opened."""
        self._state_dir, self._wall, self._failed = state_dir, wall, failed
        self._history: History | None = None
        self._unwritten: dict[RunKey, tuple[Run, dict[str, Any], RecordedSummary | None]] = {}
        """Ended runs that could not be committed, with their configuration and summary."""
        self._switch_unwritten = False

    @property
    def is_open(self) -> bool:
        """Whether the history is open."""
        return self._history is not None

    def open(self, known: Container[RunKey] = ()) -> None:
        """Open the history unless it is open, and write what could not be written before.

        Live runs on disk that are not `known` were interrupted: their supervisor has ended.
        """
        if self._history is not None:
            return
        try:
            history = History(self._state_dir)
            self.past = history.load()
            self._catch_up(history, known)
        except HistoryError as e:
            if str(e) != self.error:
                self._lost(e)
            return
        self._history, self.error = history, ""

    def close(self) -> None:
        """Close the history; nothing is read or written from here on."""
        if self._history is not None:
            self._history.close()
            self._history = None

    def set_kill_switch(self, *, on: bool) -> None:
        """Set the kill switch, at once and on disk; it survives restarts."""
        self.killed = on
        self._switch_unwritten = self._history is None
        try:
            if self._history is not None:
                self._history.set_killed(on)
        except HistoryError as e:
            self._switch_unwritten = True
            self._lost(e)

    def commit(
        self, run: Run, configuration: dict[str, Any], summary: RecordedSummary | None
    ) -> bool:
        """Write a run that has moved; True once it is on disk.

        An ended run that cannot be written is kept and written when the history opens again.
        """
        try:
            if self._history is not None:
                self._history.save(run, configuration, self._wall(), summary)
                return True
        except HistoryError as e:
            self._lost(e)
        if run.state in OVER:
            self._unwritten[run.experiment, run.run] = run, configuration, summary
        return False

    def write_snapshots(
        self,
        points: Iterable[tuple[Run, Snapshot]],
        summaries: Iterable[tuple[Run, RecordedSummary]],
    ) -> None:
        """Write points and summaries of live runs."""
        try:
            if self._history is not None:
                self._history.write_snapshots(points, summaries, self._wall())
        except HistoryError as e:
            self._lost(e)

    def timeline(self, run: Run | None) -> list[TimelineEvent]:
        """Return the run's transitions, oldest first; empty without a history."""
        return (run and self._read(lambda h: h.timeline(run.experiment, run.run))) or []

    def summary(self, run: Run | None) -> RecordedSummary | None:
        """Return the run's summary as last written; None without one."""
        return None if run is None else self._read(lambda h: h.summary(run.experiment, run.run))

    def points(self, run: Run | None) -> list[Point]:
        """Return the run's points in time, oldest first; empty without a history."""
        return (run and self._read(lambda h: h.points(run.experiment, run.run))) or []

    def recorded(self, experiment: str, number: int | None = None) -> RunRecord | None:
        """Return the record of a past run; None without a history. Raises NotRecorded."""
        return self._read(lambda h: recorded(h, experiment, number))

    def _catch_up(self, history: History, known: Container[RunKey]) -> None:
        for key, run in self.past.items():
            if key not in known and key not in self._unwritten and run.state not in OVER:
                ended = replace(run, state=State.STOPPED, reason=Reason.INTERRUPTED)
                history.save(
                    ended, history.configuration(*key), self._wall(), _interrupted(history, ended)
                )
                self.past[key] = ended
        for key, (ended, configuration, summary) in list(self._unwritten.items()):
            history.save(ended, configuration, self._wall(), summary)
            self.past[key] = ended
            del self._unwritten[key]
        if self._switch_unwritten:
            history.set_killed(self.killed)
            self._switch_unwritten = False
        self.killed = history.killed()

    def _read[T](self, ask: Callable[[History], T]) -> T | None:
        """Return what the history answers, None without one or where it cannot be read.

        A failed read is counted, and the history stays open: a request must not end its use.
        """
        try:
            return None if self._history is None else ask(self._history)
        except HistoryError as e:
            self._failed("history", e)
            return None

    def _lost(self, error: HistoryError) -> None:
        self.close()
        self.error = str(error)
        self._failed("history", error)


def _interrupted(history: History, run: Run) -> RecordedSummary | None:
    """Return the last summary of a run that ended with its supervisor, with that as verdict."""
    summary = history.summary(run.experiment, run.run)
    return summary and replace(summary, verdict=verdict_summary(conclude(run, Findings())))
