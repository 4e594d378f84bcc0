"""The Envoy engine, seen from the supervisor: one process in front, workers behind if needed."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.compiler import Found, bootstrap, compiled
from counterfault.proxy.engines.envoy.config.names import ADMIN, HOLD, LINES, LISTENERS
from counterfault.proxy.engines.envoy.detour import worker_config
from counterfault.proxy.engines.envoy.detour.worker_config import theirs
from counterfault.proxy.engines.envoy.detour.workers import DetourWorkers
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.binary import binary
from counterfault.proxy.engines.envoy.runtime.delay_server import DelayServer
from counterfault.proxy.engines.envoy.runtime.delivery import Delivery
from counterfault.proxy.engines.envoy.runtime.drain import drain
from counterfault.proxy.engines.envoy.runtime.host_inputs import certificates, system_ca
from counterfault.proxy.engines.envoy.runtime.plan_queue import PlanQueue, Wanted
from counterfault.proxy.engines.envoy.runtime.process import Command, EnvoyProcess
from counterfault.proxy.engines.envoy.runtime.run_directory import LOG, RunDirectory
from counterfault.proxy.engines.envoy.telemetry.collector import TelemetryCollector
from counterfault.proxy.engines.fault_budget import Budget, create
from counterfault.proxy.engines.graceful_close import closing
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.engines.mitmproxy.worker_process import Report
from counterfault.proxy.engines.ports import PortTaken, why_taken
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import Rows
from counterfault.proxy.values.addresses import HostPort, host_port

log = logging.getLogger("counterfault")

# An Envoy that dies younger than this is in a crash loop and is not replaced at once.
_YOUNG = 2.0
_PAUSE = 1.0
_GRACE = 5.0
# How soon Envoy's program has seen that the lease is over: twice the LOOK of lease.lua.
_SEEN = 0.5


class EnvoyEngine:
    """Counts what happens to the enrolled line by line, and asks for the sums of the others."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        pool: Callable[[Budget, Report], WorkerPool],
        cells: Callable[[str, Rows], None],
        gone: Callable[[str], None],
    ) -> None:
        sidecar = config.sidecar
        self._directory = RunDirectory(state_dir / "envoy")
        path = binary(sidecar.envoy.path, config.directory)
        command = Command(path, sidecar.workers, sidecar.limits.drain)
        self._process = EnvoyProcess(self._directory, command)
        self._admin = EnvoyAdmin(lambda: self._directory.socket(ADMIN))
        self._ear = TelemetryCollector(self._admin, cells, lambda: self._process.incarnation)
        self._delivery = Delivery(
            self._directory, self._admin, self._ear.reasons, sidecar.limits.drain
        )
        self._cells, self._gone = cells, gone
        self._holds = DelayServer()
        self.budget = Budget(create(), elsewhere=lambda: self._holds.active)
        workers = pool(self.budget, self.from_workers)
        self._config = config
        self._addresses: dict[str, HostPort] = {}
        self._plans = PlanQueue(self._bring, self._refused)
        self._reached = True
        self._lease_until = 0.0
        self._leased = True
        self._stopping = False
        self._adopt, self._rear = workers.adopt, DetourWorkers(workers, self._plans.again)
        self._tasks: list[asyncio.Task[None]] = []

    def from_workers(self, incarnation: str, told: Rows) -> None:
        """Counts of the workers behind; the rest is Envoy's to tell."""
        self._cells(incarnation, theirs(self._config, told))

    async def inherit(self, config: Config) -> None:
        """Take over what a supervisor before us has left."""
        self._ear.open(self._directory.open_pipe(LINES), self._directory.open_pipe(LOG))
        self._directory.lease(0.0)
        leaving = self._directory.lets_go
        self._directory.let_go(False)
        (self._directory.path / HOLD).unlink(missing_ok=True)
        await self._holds.open(self._directory.socket(HOLD))
        if self._process.adopt(bootstrap(config.sidecar), serves=not leaving):
            log.info("envoy (pid %d) is adopted", self._process.pid)
            self._addresses = self._present_addresses()
        await self._rear.inherit(config)

    def adopt(self, channel: Channel, message: Message, fds: list[int]) -> None:
        self._adopt(channel, message, fds)
        self._plans.again()

    def bind(self, config: Config) -> None:
        """See that Envoy can have the ports it will need. Raises OSError."""
        wanted = {
            name: host_port(listener.listen)
            for name, listener in config.sidecar.listeners.items()
            if not native_faults.by_workers(listener)
        }
        for name, address in wanted.items():
            if address[1] == 0 or address in self._addresses.values():
                continue
            if reason := why_taken(address):
                raise PortTaken(f"listener {name}: {address[0]}:{address[1]}: {reason}")
        certificates(config)
        self._rear.bind(config)
        self._addresses = wanted

    def start(self) -> None:
        works = (self._plans.deliver(), self._keep(), self._ear.report_often(), self._ear.ask())
        self._tasks = [asyncio.ensure_future(work) for work in works]
        self._rear.start()

    async def prepare(self, config: Config) -> None:
        """Have workers ready before the first detour."""
        await self._rear.prepare(config, self._lease_until)

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Begin to act on a plan; answers its generation, see `applied`."""
        if self._lease_until < time.monotonic():
            self._leased = False  # what has ended with it may not go on: it is not in this plan
        self._extend(lease_until)
        self._holds.release({(name, run.epoch) for name, run in runs.items()})
        theirs = self._rear.push(config, runs, lease_until)
        self._config = config
        self._ear.expect(config, runs, self._rear.ports())
        return self._plans.push(config, runs, theirs)

    def renew(self, lease_until: float) -> None:
        self._extend(lease_until)
        self._rear.renew(lease_until)

    def _extend(self, lease_until: float) -> None:
        self._lease_until = lease_until
        if self._leased:
            self._directory.lease(lease_until)

    @property
    def ready(self) -> int:
        """All threads at once: Envoy acts on the present plan, or, having refused it, serves on.

        Not while its detours lead nowhere; as many as workers serve, where some ports are theirs.
        """
        if not (self._plans.told and self._reached and self._process.alive()):
            return 0
        own = native_faults.served(self._config.sidecar)
        return self._rear.ready if own else self._config.sidecar.workers

    @property
    def serves(self) -> bool:
        """Whether Envoy acts on any plan, or the workers where all is theirs."""
        if native_faults.served(self._config.sidecar) == self._config.sidecar.listeners.keys():
            return self._rear.serves
        return self._plans.any_told and self._process.alive()

    @property
    def pids(self) -> list[int]:
        own = [self._process.pid] if self._process.alive() else []
        return own + self._rear.pids

    @property
    def tasks(self) -> int:
        return self._rear.tasks

    async def applied(self, generation: int) -> None:
        """Wait until Envoy and its workers act on a plan at least as new. Raises OSError."""
        if wanted := self._plans.latest:
            await self._rear.applied(wanted.behind)
        await self._plans.accepted(generation)

    async def serving(self) -> None:
        while not self.ready:
            await self._plans.news()

    async def stop(self, grace: float) -> None:
        """Drain: no more connections, the requests under way may end, who is idle leaves."""
        self._stopping = True
        self._plans.end()
        self._end_faults()
        await asyncio.gather(self._stop_envoy(grace), self._stop_workers(grace))
        await self._close()

    async def _stop_envoy(self, grace: float) -> None:
        await drain(self._admin, self._directory, self._addresses.values(), grace)
        await self._process.stop(_GRACE)

    async def _stop_workers(self, grace: float) -> None:
        """Beside Envoy, whose clients are not sent to them any more once it has seen the lease."""
        if self._rear.pids:
            await asyncio.sleep(_SEEN)
        await self._rear.stop(grace)

    def _end_faults(self) -> None:
        """Nobody leaves later for what one of them holds."""
        self._leased = False
        self._directory.lease(0.0)
        self._holds.close()
        self._rear.renew(0.0)

    def abandon(self) -> None:
        """Leave Envoy and the workers to whoever comes next."""
        self._stopping = True
        self._plans.end()
        self._rear.abandon()
        self._holds.close()
        for task in self._tasks:
            task.cancel()
        self._ear.close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._ear.finish()
        self._holds.close()

    async def _bring(self, wanted: Wanted) -> None:
        """Have Envoy act on a plan. Raises Rejected, OSError."""
        config = wanted.config
        await self._rear.nearly_applied(wanted.behind)
        found = self._found(config)
        made = await asyncio.to_thread(compiled, config, wanted.runs, found)
        if not self._process.alive():
            self._delivery.place(made)
            raise OSError("envoy is not running")
        before = self._process.incarnation
        if self._process.suit(bootstrap(config.sidecar)):
            self._gone(before)
        await self._delivery.meet(self._process.epoch, self._process.incarnation)
        async with closing(self._leaving()):
            await self._delivery.deliver(made)
        self._reached = worker_config.detoured(config) <= found.workers.keys()
        if wanted is self._plans.latest and not self._stopping:
            self._leased = True
            self._extend(self._lease_until)

    def _found(self, config: Config) -> Found:
        ports = self._rear.ports() if self._rear.pids else {}
        detoured = {name: ports[name] for name in worker_config.detoured(config) if name in ports}
        ca = {
            name: str(config.directory / listener.ca) if listener.ca else system_ca()
            for name, listener in config.sidecar.listeners.items()
        }
        return Found(detoured, certificates(config), ca)

    def _refused(self, reason: str) -> None:
        """Envoy keeps the plan before; since this one may have ended faults, they end now."""
        self._leased = False
        self._directory.lease(0.0)
        self._ear.failed("supervisor")

    async def _keep(self) -> None:
        """See that there is an Envoy."""
        while not self._stopping:
            if not self._process.alive():
                await self._begin()
            born = time.monotonic()
            await self._process.ended()
            self._gone(self._process.incarnation)
            if not self._stopping:
                log.error("envoy has ended; starting another. %s", self._ear.reasons())
                self._plans.tell_news()
                if time.monotonic() - born < _YOUNG:
                    await asyncio.sleep(_PAUSE)

    async def _begin(self) -> None:
        while (wanted := self._plans.latest) is None:
            await self._plans.news()
        self._delivery.place(compiled(wanted.config, wanted.runs, self._found(wanted.config)))
        self._process.start(bootstrap(wanted.config.sidecar))
        self._plans.again()

    def _present_addresses(self) -> dict[str, HostPort]:
        """The ports of Envoy by the configuration that it has."""
        found: dict[str, HostPort] = {}
        for listener in (self._directory.present(LISTENERS) or {}).get("resources", ()):
            where = listener["address"]["socket_address"]
            found[listener["name"]] = (where["address"], where["port_value"])
        return found

    def _leaving(self) -> set[HostPort]:
        """The ports that Envoy has and shall not have any more."""
        return {*self._present_addresses().values()} - {*self._addresses.values()}
