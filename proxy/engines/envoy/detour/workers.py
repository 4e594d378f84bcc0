"""Runs the workers behind Envoy: started when a plan first needs them, then kept."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.detour.worker_config import worker_config
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.engines.ports import bound_address
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import HostPort

# Seconds that a reload waits for workers that are needed for the first time.
_START_TIMEOUT = 10.0
# Seconds between two checks whether workers still run.
_POLL = 0.02
# Seconds that Envoy's plan waits for the workers': enough unless one of them is frozen.
_APPLY_TIMEOUT = 0.2


class DetourWorkers:
    """A worker pool that runs only from when it is needed."""

    def __init__(self, workers: WorkerPool, changed: Callable[[], None]) -> None:
        """Prepare the workers; none runs before `start`.

        Args:
            workers: The pool.
            changed: Called when all workers serve, and when none is left.
        """
        self._workers, self._changed = workers, changed
        self._bound = self._may_run = False
        # Set from when workers run.
        self._watcher: asyncio.Task[None] | None = None

    async def inherit(self, config: Config) -> None:
        """Take over the workers that an earlier supervisor has left."""
        if workers_config := self._config_of(config):
            await self._workers.inherit(workers_config)

    def bind(self, config: Config) -> None:
        """Bind the ports that workers will need. Raises OSError."""
        if workers_config := self._config_of(config):
            self._workers.bind(workers_config)
            self._bound = True

    def start(self) -> None:
        """Let workers run from now on, and start them if they are needed already."""
        self._may_run = True
        if self._bound:
            self._run()

    async def prepare(self, config: Config, lease_until: float) -> None:
        """Start workers before the first detour, and wait up to ten seconds until they serve."""
        workers_config = self._config_of(config)
        if workers_config is None or self._running or not self._may_run:
            return
        self._workers.push(workers_config, {}, lease_until)
        self._run()
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT):
                await self._workers.wait_serving()

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Send a plan. Returns its generation, for `wait_applied`; 0 if no worker is needed."""
        workers_config = self._config_of(config)
        if workers_config is None:
            return 0
        generation = self._workers.push(workers_config, runs, lease_until)
        if self._may_run:
            self._run()
        return generation

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock."""
        if self._bound:
            self._workers.renew(lease_until)

    async def wait_applied(self, generation: int) -> None:
        """Wait until every running worker acts on that plan or a newer one."""
        if self._running:
            await self._workers.wait_applied(generation)

    async def soon_applied(self, generation: int) -> None:
        """Wait like `wait_applied`, but at most 0.2 s."""
        if self.pids:
            with suppress(TimeoutError):
                async with asyncio.timeout(_APPLY_TIMEOUT):
                    await self._workers.wait_applied(generation)

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""
        return self._workers.ready

    @property
    def serves(self) -> bool:
        """Whether any worker acts on any plan."""
        return self._workers.serves

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return self._workers.pids if self._running else []

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all workers."""
        return self._workers.tasks

    def ports(self) -> dict[str, HostPort]:
        """Return the addresses on which workers listen, or will, by listener."""
        return {name: bound_address(sock) for name, sock in self._workers.sockets().items()}

    async def stop(self, grace: float) -> None:
        """Drain and end all workers; at most `grace` seconds and a few more."""
        self._stop_watching()
        if self._running:
            await self._workers.stop(grace)

    def abandon(self) -> None:
        """Leave the workers to the next supervisor."""
        self._stop_watching()
        if self._bound:
            self._workers.abandon()

    @property
    def _running(self) -> bool:
        return self._watcher is not None

    def _config_of(self, config: Config) -> Config | None:
        return worker_config(config, self.ports())

    def _run(self) -> None:
        if not self._running:
            self._workers.start()
            self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        """Call `changed` whenever detours begin or cease to lead to workers."""
        while True:
            await self._workers.wait_serving()
            self._changed()
            while self._workers.pids:  # noqa: ASYNC110 (the pool has no event for this)
                await asyncio.sleep(_POLL)
            self._changed()

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
