"""The supervisor: what the configuration wants, what the guard allows, what the workers do."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.engines.engine import Engine
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, OVER, Reason, Run
from counterfault.proxy.measurement.keys import InternalErrorKey, KeptEpochs
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.models.run_record import Snapshot
from counterfault.proxy.models.run_summary import RecordedSummary, RunSummary
from counterfault.proxy.runs.evaluator import Evaluator
from counterfault.proxy.runs.registry import RunRegistry

log = logging.getLogger("counterfault")

TICK = 1.0
# How long to wait for the workers' word, in seconds.
CONFIRM = 5.0
# What a running supervisor cannot change under itself.
FIXED = ("service", "engine", "workers", "admin", "state_dir")
_OWN = "supervisor"


class UnknownExperiment(Exception):
    """No experiment of this name is configured."""


class Supervisor:
    """Times are seconds of `clock` (monotonic); `wall` is for people and for `not_after`."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        engine: Engine,
        totals: Totals,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.totals = totals
        self.engine = engine
        self.ledger = RunRegistry(
            state_dir,
            engine.budget,
            clock,
            wall,
            self.failed,
            account=self._committed,
            serving=lambda: engine.serves,  # a phase in which nobody is served tells nothing
        )
        self.judge = Evaluator(totals, clock)
        self.reload_error: ConfigError | None = None
        self.reloaded_at = wall()
        self.lease_until = 0.0
        self._started_at = clock()
        self._reloading = asyncio.Lock()
        self._clock, self.wall = clock, wall

    def start(self) -> None:
        """Bind, find out what was going on before, and begin."""
        self.engine.bind(self.config)
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        self.ledger.find()
        self.ledger.settle(self.config)
        self._push()

    async def reload(self) -> bool:
        """Swap in what the directory says now; True once all workers act on it.

        Raises ConfigError and changes nothing.
        """
        async with self._reloading:
            try:
                # A large file takes seconds to parse, and the lease may be shorter.
                config = await asyncio.to_thread(load, self.config.directory)
                self._refuse_fixed(config)
                self._bind(config)
                await self.engine.prepare(config)
            except ConfigError as e:
                self.reload_error = e
                raise
            before, self.config = self.config, config
            self.reload_error, self.reloaded_at = None, self.wall()
            self.ledger.edited(before, config)
            self.ledger.settle(config)
            generation = self._push()
        confirmed = await self._confirmed(generation)
        if self.reload_error is not None:
            raise self.reload_error
        return confirmed

    async def stop(self, name: str | None = None) -> bool:
        """Stop one experiment or, with the kill switch, all; True once all workers have."""
        known = {e.name for e in self.config.experiments}
        if name is not None and name not in known:
            raise UnknownExperiment(name)
        if name is None:
            self.ledger.switch(on=True)
        self.ledger.settle(self.config, {} if name is None else {name: [Reason.OPERATOR]})
        return await self._confirmed(self._push())

    def resume(self) -> None:
        """Lift the kill switch; what it stopped stays stopped."""
        moved = self.ledger.settle(self.config)
        self.ledger.switch(on=False)
        if moved:
            self._push()

    def tick(self) -> None:
        """Once a second: let numbers, time and limits act, and renew the lease."""
        self.ledger.find()
        moved = self._stop_if_late()
        live = list(self.live())
        self.judge.look(live)
        found = {run.experiment: self.judge.stops(run) for run, _ in live}
        held = {run.experiment for run, _ in live if self.judge.held(run)}
        if self.ledger.settle(self.config, found, held) or moved:
            self._push()
        else:
            self._renew()
        points = [*self.judge.points(self.live()), *self._last_points(live)]
        records = self.judge.records(self.live())
        if points or records:
            self.ledger.note(points, records)

    def close(self) -> None:
        """Keep what is known of the runs under way, which end with this; then touch no disk."""
        self.ledger.note([], [(run, self.judge.record(run, e)) for run, e in self.live()])
        self.ledger.close()

    def renew(self) -> None:
        """Let faults go on; after a standstill longer than the lease, `tick` has to stop them."""
        if not self.lease_late:
            self._renew()

    def account(self, name: str) -> RunSummary | None:
        """All there is to say of the present run: as it is, or as it ended."""
        run = self.ledger.runs.get(name)
        if run is None:
            return None
        return self.judge.account(run) or self.ledger.account(name)

    def result(self, name: str) -> Result:
        """The verdict on the present run in one word."""
        run = self.ledger.runs.get(name)
        if run is None:
            return Result.INCONCLUSIVE
        if self.judge.findings(run) is not None:
            return self.judge.verdict(run).result
        told = self.ledger.account(name)
        return told.verdict.result if told else Result.INCONCLUSIVE

    @property
    def lease_late(self) -> bool:
        """Whether the lease has run out since it was last renewed."""
        return self._clock() > self.lease_until

    @property
    def uptime(self) -> float:
        return self._clock() - self._started_at

    @property
    def lease_remaining(self) -> float:
        return max(0.0, self.lease_until - self._clock())

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an error of our own."""
        key = InternalErrorKey(where)
        self.totals.update(_OWN, [(key, self.totals.part(_OWN, key) + 1)])
        log.error("%s: %s", where, error)

    async def _confirmed(self, generation: int) -> bool:
        """Whether the workers act on a plan soon; one that is frozen loses its lease instead."""
        try:
            async with asyncio.timeout(CONFIRM):
                await self.engine.wait_applied(generation)
        except TimeoutError:
            return False
        except OSError as e:  # the data plane keeps the plan before, without faults
            self.reload_error = ConfigError((Problem("sidecar.yaml", 1, 1, "engine", str(e)),))
            return False
        return True

    def live(self) -> Iterator[tuple[Run, Experiment]]:
        """The runs under way."""
        for experiment in self.config.experiments:
            run = self.ledger.runs.get(experiment.name)
            if run is not None and run.state in LIVE:
                yield run, experiment

    def _last_points(
        self, live: Iterable[tuple[Run, Experiment]]
    ) -> Iterator[tuple[Run, Snapshot]]:
        """Of the runs that were live and are no more: what made them end is worth a point."""
        for run, experiment in live:
            if self.ledger.runs[run.experiment].state in OVER:
                yield self.judge.point(run, experiment)

    def _committed(self, run: Run) -> RecordedSummary:
        """What is committed with a run that moves."""
        known = (e for e in self.config.experiments if e.name == run.experiment)
        return self.judge.record(run, next(known, None))

    def _renew(self) -> None:
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        self.engine.renew(self.lease_until)

    def _stop_if_late(self) -> bool:
        """Whoever stood still for longer than the lease has not watched: live runs end."""
        if not self.lease_late:
            return False
        return self.ledger.settle(
            self.config, {run.experiment: [Reason.LEASE] for run, _ in self.live()}
        )

    def _push(self) -> int:
        self._stop_if_late()
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        runs = self.ledger.runs.values()
        kept = KeptEpochs((run.experiment, epoch) for run in runs for epoch in run.epochs)
        self.totals.forget_others(kept)
        return self.engine.push(self.config, self.ledger.live(), self.lease_until)

    def _refuse_fixed(self, config: Config) -> None:
        problems = [
            Problem("sidecar.yaml", 1, 1, name, "cannot change while running; restart for it")
            for name in FIXED
            if getattr(config.sidecar, name) != getattr(self.config.sidecar, name)
        ]
        if problems:
            raise ConfigError(tuple(problems))

    def _bind(self, config: Config) -> None:
        try:
            self.engine.bind(config)
        except OSError as e:
            raise ConfigError((Problem("sidecar.yaml", 1, 1, "listeners", str(e)),)) from e


async def ticking(supervisor: Supervisor) -> None:
    """Tick for ever, and renew the lease well before it ends."""
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        try:
            if clock() >= due:
                due += TICK
                supervisor.tick()
            else:
                supervisor.renew()
        except Exception as e:
            supervisor.failed("supervisor", e)
        await asyncio.sleep(min(TICK, supervisor.config.sidecar.limits.lease) / 4)
