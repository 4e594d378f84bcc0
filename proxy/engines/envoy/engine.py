"""The Envoy engine, as the supervisor uses it: an Envoy in front, workers behind it if needed."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.compiler import HostInputs
from counterfault.proxy.engines.envoy.config.names import ADMIN_SOCKET, DELAY_SOCKET
from counterfault.proxy.engines.envoy.detour.worker_config import (
    detoured_listeners,
    rows_of_workers,
)
from counterfault.proxy.engines.envoy.detour.workers import DetourWorkers
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.binary import find_envoy
from counterfault.proxy.engines.envoy.runtime.delay_server import DelayServer
from counterfault.proxy.engines.envoy.runtime.delivery import Delivery
from counterfault.proxy.engines.envoy.runtime.host_inputs import certificates, system_ca
from counterfault.proxy.engines.envoy.runtime.lease import Lease
from counterfault.proxy.engines.envoy.runtime.plan_queue import PlanQueue, QueuedPlan
from counterfault.proxy.engines.envoy.runtime.process import EnvoyCommand, EnvoyProcess
from counterfault.proxy.engines.envoy.runtime.run_directory import PIPES, RunDirectory
from counterfault.proxy.engines.envoy.runtime.server import EnvoyServer
from counterfault.proxy.engines.envoy.telemetry.collector import TelemetryCollector
from counterfault.proxy.engines.fault_budget import Budget, create
from counterfault.proxy.engines.keeper import keep_running
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.engines.mitmproxy.worker_process import Report
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import Rows

# Seconds until Envoy's Lua program has noticed the end of a lease: twice the PERIOD of lease.lua.
_LEASE_NOTICED = 0.5


class EnvoyEngine:
    """An Envoy, its telemetry, and the workers that serve detours."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        pool: Callable[[Budget, Report], WorkerPool],
        report: Callable[[str, Rows], None],
        gone: Callable[[str], None],
    ) -> None:
        """Prepare the engine; `start` begins to run Envoy.

        Args:
            config: The configuration.
            state_dir: The state directory; Envoy runs in a directory below it.
            pool: Makes the workers' pool from the fault budget and a receiver of their counts.
            report: Called with an incarnation and its counts.
            gone: Called with the incarnation of an Envoy that has ended.

        Raises:
            OSError: There is no Envoy program, or no directory to run in.
        """
        sidecar, limits = config.sidecar, config.sidecar.limits
        self._config = config
        self._report, self._gone = report, gone
        self._directory = RunDirectory(state_dir / "envoy")
        path = find_envoy(sidecar.envoy.path, config.directory)
        command = EnvoyCommand(path, sidecar.workers, limits.drain)
        self._process = EnvoyProcess(self._directory, command)
        admin = EnvoyAdmin(lambda: self._directory.socket_path(ADMIN_SOCKET))
        self._telemetry = TelemetryCollector(admin, report, gone, lambda: self._process.incarnation)
        delivery = Delivery(self._directory, admin, self._telemetry.reasons, limits.drain)
        self._server = EnvoyServer(self._directory, admin, self._process, delivery, gone)
        self._delays = DelayServer()
        self._lease = Lease(self._directory)
        self._plans = PlanQueue(self._apply, self._rejected)
        self.budget = Budget(create(), elsewhere=lambda: self._delays.active)
        workers = pool(self.budget, self._report_workers)
        self._adopt_worker = workers.adopt
        self._workers = DetourWorkers(workers, self._plans.redeliver)
        self._detours_served = True
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def _report_workers(self, incarnation: str, rows: Rows) -> None:
        """Report the workers' counts, without those of exchanges that Envoy counts itself."""
        self._report(incarnation, rows_of_workers(self._config, rows))

    async def inherit(self, config: Config) -> None:
        """Take over the Envoy and the workers of an earlier supervisor. Raises OSError."""
        pipes = (self._directory.open_pipe(name) for name in PIPES)
        self._telemetry.open(*pipes)
        self._lease.revoke()
        draining = self._directory.is_draining
        self._directory.set_draining(False)
        (self._directory.path / DELAY_SOCKET).unlink(missing_ok=True)
        await self._delays.open(self._directory.socket_path(DELAY_SOCKET))
        self._server.adopt(config.sidecar, serves=not draining)
        await self._workers.inherit(config)

    def adopt(self, channel: Channel, message: Message, fds: list[int]) -> None:
        """Take over a worker that has lost its supervisor, see `WorkerPool.adopt`."""
        self._adopt_worker(channel, message, fds)
        self._plans.redeliver()

    def bind(self, config: Config) -> None:
        """Make sure that Envoy and the workers can have their ports and files. Raises OSError."""
        addresses = self._server.addresses_of(config.sidecar)
        certificates(config)
        self._workers.bind(config)
        self._server.listen_on(addresses)

    def start(self) -> None:
        """Begin to run Envoy, its telemetry, and the workers if they are needed."""
        works = (
            self._plans.deliver(),
            keep_running("envoy", self._start_envoy, self._ended, lambda: self._stopping),
            self._telemetry.report_lines(),
            self._telemetry.report_admin_stats(),
        )
        self._tasks = [asyncio.ensure_future(work) for work in works]
        self._workers.start()

    async def prepare(self, config: Config) -> None:
        """Start workers before the first detour, within a bounded time."""
        await self._workers.prepare(config, self._lease.until)

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Send a plan. Returns its generation, for `wait_applied`.

        `lease_until` in seconds of the monotonic clock.
        """
        self._lease.withhold_if_over()
        self._lease.extend(lease_until)
        self._delays.release_others({(name, run.epoch) for name, run in runs.items()})
        workers_generation = self._workers.push(config, runs, lease_until)
        self._config = config
        self._telemetry.expect(config, runs, self._workers.ports())
        return self._plans.push(config, runs, workers_generation)

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock."""
        self._lease.extend(lease_until)
        self._workers.renew(lease_until)

    @property
    def ready(self) -> int:
        """How many of Envoy's threads, or of the workers, serve the present plan.

        All of Envoy's threads are ready at once: when Envoy has accepted the plan, or rejected it
        and serves the one before, and all its detours lead to workers. If workers serve listeners
        without Envoy, their number counts instead.
        """
        if not (self._plans.settled and self._detours_served and self._process.alive()):
            return 0
        sidecar = self._config.sidecar
        return self._workers.ready if native_faults.worker_listeners(sidecar) else sidecar.workers

    @property
    def serves(self) -> bool:
        """Whether traffic passes, on any plan: through Envoy, or workers if they serve it all."""
        sidecar = self._config.sidecar
        if native_faults.worker_listeners(sidecar) == sidecar.listeners.keys():
            return self._workers.serves
        return self._plans.any_settled and self._process.alive()

    @property
    def pids(self) -> list[int]:
        """The processes of Envoy and of the workers."""
        envoy = [self._process.pid] if self._process.alive() else []
        return envoy + self._workers.pids

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all workers."""
        return self._workers.tasks

    async def wait_applied(self, generation: int) -> None:
        """Wait until Envoy and its workers act on a plan at least as new.

        Raises:
            OSError: Envoy has rejected the plan.
        """
        if latest := self._plans.latest:
            await self._workers.wait_applied(latest.workers_generation)
        await self._plans.accepted(generation)

    async def wait_serving(self) -> None:
        """Wait until the present plan is served."""
        while not self.ready:
            await self._plans.changed.wait()

    async def stop(self, grace: float) -> None:
        """Drain for at most `grace` seconds, then end Envoy and the workers."""
        self._stopping = True
        self._plans.close()
        self._end_faults()
        await asyncio.gather(self._server.stop(grace), self._stop_workers(grace))
        self._cancel_tasks()
        self._telemetry.finish()
        self._delays.close()

    def abandon(self) -> None:
        """Leave Envoy and the workers to the next supervisor."""
        self._stopping = True
        self._plans.close()
        self._workers.abandon()
        self._delays.close()
        self._cancel_tasks()
        self._telemetry.close()

    def _end_faults(self) -> None:
        """End all faults first, so that held requests do not delay the drain."""
        self._lease.revoke()
        self._delays.close()
        self._workers.renew(0.0)

    async def _stop_workers(self, grace: float) -> None:
        """Stop the workers while Envoy drains, once it sends no more requests to them."""
        if self._workers.pids:
            await asyncio.sleep(_LEASE_NOTICED)
        await self._workers.stop(grace)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _apply(self, plan: QueuedPlan) -> None:
        """Make Envoy act on a plan. Raises ConfigRejected, OSError."""
        await self._workers.soon_applied(plan.workers_generation)
        host = self._host_inputs(plan.config)
        await self._server.apply(plan.config, plan.runs, host)
        self._detours_served = detoured_listeners(plan.config) <= host.workers.keys()
        if plan is self._plans.latest and not self._stopping:
            self._lease.grant()

    def _rejected(self, reason: str) -> None:
        """End all faults, since the rejected plan may have ended some. Envoy keeps the one before.

        The plan queue logs the reason.
        """
        self._lease.revoke()
        self._telemetry.count_error("supervisor")

    async def _start_envoy(self) -> None:
        """Start an Envoy on the latest plan, unless one runs. Raises OSError."""
        if self._process.alive():
            return
        while (plan := self._plans.latest) is None:
            await self._plans.changed.wait()
        self._server.start(plan.config, plan.runs, self._host_inputs(plan.config))
        self._plans.redeliver()

    async def _ended(self) -> str:
        """Wait for the end of Envoy. Returns the errors in its log."""
        await self._process.wait_ended()
        self._gone(self._process.incarnation)
        self._telemetry.envoy_ended()
        self._plans.changed.notify()
        return self._telemetry.reasons()

    def _host_inputs(self, config: Config) -> HostInputs:
        """Return the workers' addresses and the certificate files. Raises OSError."""
        ports = self._workers.ports() if self._workers.pids else {}
        workers = {name: ports[name] for name in detoured_listeners(config) if name in ports}
        ca = {
            name: str(config.directory / listener.ca) if listener.ca else system_ca()
            for name, listener in config.sidecar.listeners.items()
        }
        return HostInputs(workers, certificates(config), ca)
