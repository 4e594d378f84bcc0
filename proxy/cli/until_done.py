"""`counterfault run DIR --until-done`: waits for the runs, and has their records."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from counterfault.proxy.admin.views import report
from counterfault.proxy.config.model import Config
from counterfault.proxy.experiments.lifecycle import LIVE, Run, State
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.runs.history import History, HistoryError
from counterfault.proxy.runs.record import NotRecorded
from counterfault.proxy.supervisor.supervisor import Supervisor, UnknownExperiment

_LOOK = 0.2


def obstacle(config: Config, state_dir: Path) -> str | None:
    """Return why no run can start; None if one can."""
    wanted = [(e.name, e.run) for e in config.experiments if e.state == "running"]
    if not wanted:
        return "nothing is to be run: no experiment says `state: running`"
    try:
        with closing(History(state_dir)) as history:
            killed, runs = history.killed(), history.load()
    except HistoryError as e:
        return f"no run can start: {e}"
    if killed:
        return "the kill switch is on: nothing starts until `counterfault resume`"
    begun = [runs[key] for key in wanted if key in runs and runs[key].state is not State.PENDING]
    if len(begun) < len(wanted):
        return None
    said = ", ".join(f"{run.experiment} #{run.run} was {_was(run)}" for run in begun)
    return f"nothing is to be run: {said}; raise `run` to run again"


class UntilDone:
    """Waits for the runs of a supervisor, and remembers them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._met: dict[tuple[str, int], None] = {}

    async def wait(self) -> None:
        """Wait until no run is live, and none is still to start."""
        while True:
            if not self._waits():
                return
            await asyncio.sleep(_LOOK)

    async def stop(self) -> None:
        """Stop the live runs: they cannot go on without their sidecar."""
        for run in list(self._open()):
            if run.state in LIVE:
                await self._supervisor.stop(run.experiment)

    def records(self) -> Iterator[RunRecord]:
        """Yield the record of each run; a run that never began has none."""
        for name, number in self._met:
            try:
                yield report(self._supervisor, name, number)
            except (UnknownExperiment, NotRecorded):
                continue

    def _waits(self) -> bool:
        found = list(self._open())
        self._met |= {(run.experiment, run.run): None for run in found}
        if self._supervisor.reader.is_open:
            return bool(found)
        return any(run.state in LIVE for run in found)  # nothing else can start any more

    def _open(self) -> Iterator[Run]:
        """Yield the runs that are live or still to start."""
        for e in self._supervisor.config.experiments:
            run = self._supervisor.reader.run(e)
            if run.state in LIVE or (run.state is State.PENDING and e.state == "running"):
                yield run


def _was(run: Run) -> str:
    if run.state in LIVE:
        return "interrupted"
    return f"{run.state} before ({run.reason})" if run.reason else f"{run.state} before"
