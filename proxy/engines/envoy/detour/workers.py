"""The workers behind Envoy at work: born when something first needs them, then kept."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.detour.worker_config import behind
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.engines.ports import bound_address
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import HostPort

# How long a reload waits for workers that are needed for the first time.
_BIRTH = 10.0
_LOOK = 0.02
# How long workers may take to act on a plan before Envoy is told; one that is frozen takes longer.
_PLAN = 0.2


class DetourWorkers:
    """`changed` is called when workers have come or gone."""

    def __init__(self, workers: WorkerPool, changed: Callable[[], None]) -> None:
        self._workers, self._changed = workers, changed
        self._bound = self._may_work = False
        self._watch: asyncio.Task[None] | None = None
        """From when they work on."""

    async def inherit(self, config: Config) -> None:
        """Take over the workers that a supervisor before us has left."""
        if own := self._own(config):
            await self._workers.inherit(own)

    def bind(self, config: Config) -> None:
        """Bind what workers will need. Raises OSError."""
        if own := self._own(config):
            self._workers.bind(own)
            self._bound = True

    def start(self) -> None:
        """From now on workers may be born."""
        self._may_work = True
        if self._bound:
            self._work()

    async def prepare(self, config: Config, lease_until: float) -> None:
        """Have workers ready before the first detour."""
        own = self._own(config)
        if own is None or self._working or not self._may_work:
            return
        self._workers.push(own, {}, lease_until)
        self._work()
        with suppress(TimeoutError):
            async with asyncio.timeout(_BIRTH):
                await self._workers.serving()

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Send a plan; answers its generation among the workers, 0 where there are none."""
        own = self._own(config)
        if own is None:
            return 0
        generation = self._workers.push(own, runs, lease_until)
        if self._may_work:
            self._work()
        return generation

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then."""
        if self._bound:
            self._workers.renew(lease_until)

    async def applied(self, generation: int) -> None:
        """Wait until every living worker acts on that plan or a newer one."""
        if self._working:
            await self._workers.applied(generation)

    async def nearly_applied(self, generation: int) -> None:
        """The same, but no longer than Envoy can wait."""
        if self.pids:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PLAN):
                    await self._workers.applied(generation)

    @property
    def ready(self) -> int:
        """How many act on the present plan."""
        return self._workers.ready

    @property
    def serves(self) -> bool:
        """Whether one acts on any plan."""
        return self._workers.serves

    @property
    def pids(self) -> list[int]:
        return self._workers.pids if self._working else []

    @property
    def tasks(self) -> int:
        return self._workers.tasks

    def ports(self) -> dict[str, HostPort]:
        """Where workers listen, or will."""
        return {name: bound_address(sock) for name, sock in self._workers.sockets().items()}

    async def stop(self, grace: float) -> None:
        """Drain all of them."""
        self._forget()
        if self._working:
            await self._workers.stop(grace)

    def abandon(self) -> None:
        """Leave them to whoever comes next."""
        self._forget()
        if self._bound:
            self._workers.abandon()

    @property
    def _working(self) -> bool:
        return self._watch is not None

    def _own(self, config: Config) -> Config | None:
        return behind(config, self.ports())

    def _work(self) -> None:
        if not self._working:
            self._workers.start()
            self._watch = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        """Whether detours lead anywhere changes what Envoy is told."""
        while True:
            await self._workers.serving()
            self._changed()
            while self._workers.pids:  # noqa: ASYNC110 (whoever dies tells nobody)
                await asyncio.sleep(_LOOK)
            self._changed()

    def _forget(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
