"""A worker: serves the listeners that the supervisor names, by the plans that it sends.

When the supervisor is gone the worker goes on serving, without faults, and looks for the next one.
"""

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from counterfault import __version__
from counterfault.addons.state import WorkerState
from counterfault.addons.transport.certificate_issuer import CertificateIssuer, load_issuer
from counterfault.addons.worker.listener import Listener, ListenerSettings, settings_of
from counterfault.addons.worker.supervisor_link import Introduction, SupervisorLink
from counterfault.addons.worker.worker_context import WorkerContext
from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.channel import Message
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Plan
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import Rows

log = logging.getLogger("counterfault")

# Seconds between two reports of counts; the lease is checked as often.
_REPORT_EVERY = 0.1
# Seconds between two checks of which connections have outlived their limits.
_SWEEP_EVERY = 1.0
_DRAIN_POLL = 0.02
# Seconds that a worker that leaves waits for the supervisor to read its last report.
_LAST_REPORT = 2.0


class Worker:
    """Listeners, the plan they act on, and the link to the supervisor."""

    def __init__(
        self,
        control: socket.socket,
        budget: Budget,
        index: int,
        compose: Callable[[WorkerState], WorkerContext],
    ) -> None:
        """Wait for the first plan.

        Args:
            control: The socket to the supervisor.
            budget: The shared counters, with this worker's slot.
            index: The number of this worker in the pool.
            compose: Makes what connections share; called with the state of the first plan.
        """
        self.stop = asyncio.Event()
        """Set when the worker is to drain and leave."""
        self._budget, self._index, self._compose = budget, index, compose
        self._context: WorkerContext | None = None
        """None before the first plan."""
        self._handover_socket = ""
        self._leased = False
        self._settings: dict[str, ListenerSettings] = {}
        self._issuer: CertificateIssuer | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._listeners: dict[str, Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._incarnation = f"{os.getpid()}-{time.monotonic_ns()}"
        self._reported_tasks = 0
        self._supervisor = SupervisorLink(
            control, self._receive, self._introduce, self._report_everything, self.stop
        )

    # --- messages of the supervisor

    def _receive(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "plan":
                self._plan_received(message)
            case "listen":
                for name, fd in zip(message["names"], fds, strict=True):
                    self._listen(name, socket.socket(fileno=fd))
            case "lease":
                self._lease_received(message["until"])
            case "drain":
                self.stop.set()
            case other:
                log.error("unknown message %r", other)

    def _lease_received(self, until: float) -> None:
        if self._context is None or not self._leased:
            return
        state = self._context.state
        state.lease_until = until
        # An expired lease is how the supervisor asks for faults to end: release them now.
        if not state.leased():
            state.release_ended_faults()

    def _plan_received(self, message: Message) -> None:
        """Apply a plan. If that fails, end all faults: the plan may have been sent to end them."""
        try:
            self._apply_plan(message)
        except Exception as e:
            self._leased = False
            log.error("plan %d: %s: %s", message["generation"], type(e).__name__, e)
            if self._context is not None:
                self._context.state.failed("supervisor", e)
                self._context.state.lease_until = 0.0

    def _apply_plan(self, message: Message) -> None:
        config = Config.from_wire(message["config"])
        self._handover_socket = message["handover_socket"]
        runs = {name: RunStatus.from_wire(run) for name, run in message["runs"].items()}
        plan = Plan(config.sidecar, config.experiments, runs)
        # What can fail comes first: files may have gone since the supervisor read them.
        issuer = load_issuer(message["authority"], self._issuer)
        self._settings, self._issuer = settings_of(config, plan, issuer), issuer
        if self._context is None:
            state = WorkerState(plan, self._budget, workers=config.sidecar.workers)
            self._context = self._compose(state)
        state = self._context.state
        state.apply_plan(plan, {name: run.slot for name, run in runs.items()})
        state.lease_until, self._leased = message["lease_until"], True
        for name in [name for name in self._listeners if name not in plan.routes]:
            self._start_task(self._listeners.pop(name).close(self._sockets.pop(name)))
        for name, listener in self._listeners.items():
            listener.settings = self._settings[name]
        self._supervisor.send({"type": "applied", "generation": message["generation"]})

    def _listen(self, name: str, sock: socket.socket) -> None:
        if self._context is None:
            raise RuntimeError("listen before plan")
        if name in self._listeners:
            self._start_task(self._listeners[name].close(self._sockets[name]))
        # The event loop closes the socket it is given; the next supervisor gets this one.
        self._sockets[name] = sock.dup()
        listener = self._listeners[name] = Listener(self._context, self._settings[name])
        self._start_task(listener.start(sock))

    # --- reports to the supervisor

    def _introduce(self) -> Introduction | None:
        if self._context is None:
            return None
        orphans = self._context.state.plan.limits.orphans
        message = {
            "type": "orphan",
            "version": __version__,
            "pid": os.getpid(),
            "index": self._index,
            "names": list(self._sockets),
        }
        return Introduction(
            self._handover_socket,
            math.inf if orphans is None else orphans,
            message,
            [*(sock.fileno() for sock in self._sockets.values()), self._budget.fd],
        )

    def _report_everything(self) -> None:
        self._reported_tasks = 0
        if self._context is not None:
            self._send_counts(self._context.state.counters.everything())

    def _report_changes(self) -> None:
        # What is taken is taken as known to the supervisor, so that it may be forgotten here.
        if self._context is None or self._supervisor.stalled or not self._supervisor.connected:
            return
        self._send_counts(self._context.state.counters.take_changed())
        tasks = len(asyncio.all_tasks())
        if tasks != self._reported_tasks:
            self._reported_tasks = tasks
            self._supervisor.send({"type": "tasks", "count": tasks})

    def _send_counts(self, rows: Rows) -> None:
        if rows:
            self._supervisor.send({"type": "counts", "from": self._incarnation, "rows": rows})

    # --- work of its own

    async def run_periodic_work(self) -> None:
        """Report counts, end faults whose lease is over, close idle connections; never return."""
        swept = 0.0
        while True:
            self._report_changes()
            if self._context is not None:
                if self._context.state.held_faults:
                    self._context.state.release_ended_faults()
                if time.monotonic() - swept > _SWEEP_EVERY:
                    swept = time.monotonic()
                    for client in tuple(self._context.clients):
                        client.close_if_expired()
            await asyncio.sleep(_REPORT_EVERY)

    async def drain(self) -> None:
        """Stop accepting, let requests under way finish, close idle connections.

        After `limits.drain` seconds, requests without an answer get a 502.
        """
        for name, listener in self._listeners.items():
            await listener.close(self._sockets[name])
        if self._context is None:
            return
        state, clients = self._context.state, self._context.clients
        state.draining = True
        end = time.monotonic() + state.plan.limits.drain
        while clients and time.monotonic() < end:
            for client in tuple(clients):
                if not client.busy:
                    client.drain()
            await asyncio.sleep(_DRAIN_POLL)
        for client in clients:
            client.drop_upstreams()
        await asyncio.sleep(_DRAIN_POLL)
        await self._report_last()

    async def _report_last(self) -> None:
        """Report what has ended meanwhile, also if the supervisor is slow to read."""
        end = time.monotonic() + _LAST_REPORT
        for report in (self._report_changes, lambda: None):
            while self._supervisor.stalled and self._supervisor.connected:
                if time.monotonic() > end:
                    return
                await asyncio.sleep(_DRAIN_POLL)
            report()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
