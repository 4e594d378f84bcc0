"""The supervisor: evaluates and moves runs once a second, and tells the data plane the plan."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.engines.engine import Engine
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, OVER, Reason, Run
from counterfault.proxy.measurement.keys import InternalErrorKey, KeptEpochs
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.models.run_record import Snapshot
from counterfault.proxy.runs.evaluation import Evaluation
from counterfault.proxy.runs.evaluator import Evaluator
from counterfault.proxy.runs.registry import RunRegistry
from counterfault.proxy.runs.store import RunStore
from counterfault.proxy.supervisor.run_reader import RunReader

log = logging.getLogger("counterfault")

TICK = 1.0
# How many seconds to wait until all workers act on a plan.
CONFIRM = 5.0
# Settings that a reload cannot change.
FIXED = ("service", "engine", "workers", "admin", "state_dir")
_OWN = "supervisor"


class UnknownExperiment(Exception):
    """No experiment of this name is configured."""


class Supervisor:
    """Owns the runs of one configuration. Use it from one asyncio loop.

    `clock` returns monotonic seconds, `wall` Unix seconds; only people and dates need `wall`.
    """

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
        self.registry = RunRegistry(
            RunStore(state_dir, wall, self.failed), engine.budget, clock, wall
        )
        self.evaluator = Evaluator(totals, clock)
        self.readings = self.evaluator.monitor.readings
        self.reader = RunReader(self.registry, self.evaluator, totals)
        self.reload_error: ConfigError | None = None
        self.reloaded_at = wall()
        self.lease_until = 0.0
        self._started_at = clock()
        self._reloading = asyncio.Lock()
        self._clock, self.wall = clock, wall

    def start(self) -> None:
        """Bind the listeners, open the state directory, start runs, push the first plan.

        Raises OSError if a listener cannot be bound.
        """
        self.engine.bind(self.config)
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        self.registry.open()
        self._advance()
        self._push()

    async def reload(self) -> bool:
        """Load the directory and use what it says; True once all workers act on it.

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
            self._commit(self.registry.restart_edited(before, config))
            self._advance()
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
            self.registry.store.set_kill_switch(on=True)
        self._advance({} if name is None else {name: Evaluation((Reason.OPERATOR,))})
        return await self._confirmed(self._push())

    def resume(self) -> None:
        """Lift the kill switch; what it stopped stays stopped."""
        moved = self._advance()
        self.registry.store.set_kill_switch(on=False)
        if moved:
            self._push()

    def tick(self) -> None:
        """Once a second: let numbers, time and limits act, and renew the lease."""
        self.registry.open()
        moved = self._stop_if_late()
        live = list(self.live())
        if self._advance(self.evaluator.evaluate_all(live)) or moved:
            self._push()
        else:
            self._renew()
        points = [*self.evaluator.points(self.live()), *self._last_points(live)]
        records = self.evaluator.records(self.live())
        if points or records:
            self.registry.store.write_snapshots(points, records)

    def close(self) -> None:
        """Write the records of the live runs, which end here, and close the store."""
        records = [(run, self.evaluator.record(run, e)) for run, e in self.live()]
        self.registry.store.write_snapshots([], records)
        self.registry.store.close()

    def renew(self) -> None:
        """Renew the lease unless it has run out: then `tick` stops the live runs."""
        if not self.lease_late:
            self._renew()

    @property
    def lease_late(self) -> bool:
        """Whether the lease has run out since it was last renewed."""
        return self._clock() > self.lease_until

    @property
    def uptime(self) -> float:
        """Seconds since the supervisor started."""
        return self._clock() - self._started_at

    @property
    def lease_remaining(self) -> float:
        """Seconds until the lease runs out, 0 if it has."""
        return max(0.0, self.lease_until - self._clock())

    @property
    def faults_active(self) -> int:
        """How many faults are under way in all workers together."""
        return self.engine.budget.active()

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an error of our own."""
        key = InternalErrorKey(where)
        self.totals.update(_OWN, [(key, self.totals.part(_OWN, key) + 1)])
        log.error("%s: %s", where, error)

    async def _confirmed(self, generation: int) -> bool:
        """Return whether all workers act on a plan within CONFIRM seconds."""
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
        """Yield the live runs with their experiments."""
        for experiment in self.config.experiments:
            run = self.registry.runs.get(experiment.name)
            if run is not None and run.state in LIVE:
                yield run, experiment

    def _last_points(
        self, live: Iterable[tuple[Run, Experiment]]
    ) -> Iterator[tuple[Run, Snapshot]]:
        """Yield a last point of each run that has just ended, with what made it end."""
        for run, experiment in live:
            if self.registry.runs[run.experiment].state in OVER:
                yield self.evaluator.point(run, experiment)

    def _advance(self, evaluations: Mapping[str, Evaluation] = MappingProxyType({})) -> bool:
        """Move every run to where it belongs now; True if any moved."""
        # A phase in which no traffic is served would measure nothing, so none begins.
        serving = self.engine.serves
        return self._commit(self.registry.advance_all(self.config, evaluations, serving=serving))

    def _commit(self, moves: Iterable[Run]) -> bool:
        """Commit moved runs with their summaries, one by one; True if any has moved."""
        known = {e.name: e for e in self.config.experiments}
        found = (
            (run, self.evaluator.record(run, known.get(run.experiment)))
            for run in moves
            if self.registry.store.is_open or run.state not in LIVE
        )
        return bool(self.registry.commit(found))

    def _renew(self) -> None:
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        self.engine.renew(self.lease_until)

    def _stop_if_late(self) -> bool:
        """Stop live runs if the lease ran out: they were not evaluated since. True if any moved."""
        if not self.lease_late:
            return False
        return self._advance(
            {run.experiment: Evaluation((Reason.LEASE,)) for run, _ in self.live()}
        )

    def _push(self) -> int:
        self._stop_if_late()
        self.lease_until = self._clock() + self.config.sidecar.limits.lease
        runs = self.registry.runs.values()
        kept = KeptEpochs((run.experiment, epoch) for run in runs for epoch in run.epochs)
        self.totals.forget_others(kept)
        return self.engine.push(self.config, self.registry.statuses(), self.lease_until)

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
    """Tick once a second until cancelled, and renew the lease four times as often."""
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
