"""A worker process: it serves what the supervisor tells it to over the control socket.

When the supervisor is gone it goes on serving, without faults, and looks for the next one.
"""

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from counterfault import __version__
from counterfault.addons.state import WorkerState
from counterfault.addons.transport.certificate_issuer import CertificateIssuer, load_issuer
from counterfault.addons.worker.listener import Listener, Shared
from counterfault.addons.worker.wiring import share, tls_of
from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Plan
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import Rows

log = logging.getLogger("counterfault")

# How often counts are sent and the lease is looked at.
BEAT = 0.1
_DRAIN_POLL = 0.02
_SEEK = 0.1
# How often connections are looked at for having outlived their limits.
_SWEEP = 1.0


class Worker:
    """Listeners, the plan they act on, and the channel to the supervisor."""

    def __init__(self, control: socket.socket, budget: Budget, index: int) -> None:
        self._channel = Channel(control, self._receive, self._orphaned)
        self._budget, self._index = budget, index
        self._handover_socket = ""
        self._leased = False
        self._contexts: dict[str, tuple[Any, Path | None]] = {}
        self._issuer: CertificateIssuer | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._live: WorkerState | None = None
        self._shared: Shared | None = None
        self._listeners: dict[str, Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._incarnation = f"{os.getpid()}-{time.monotonic_ns()}"
        self._told_tasks = 0
        self.stop = asyncio.Event()

    def _receive(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "plan":
                self._plan(message)
            case "listen":
                for name, fd in zip(message["names"], fds, strict=True):
                    self._listen(name, socket.socket(fileno=fd))
            case "lease":
                if self._live is not None and self._leased:
                    self._live.lease_until = message["until"]
                    if not self._live.leased():  # whoever is told to leave has it told so
                        self._live.release_ended_faults()
            case "drain":
                self.stop.set()
            case other:
                log.error("unknown message %r", other)

    def _plan(self, message: Message) -> None:
        """Act on a plan; one that cannot be used ends all faults, since it may have meant to."""
        try:
            self._swap(message)
        except Exception as e:
            self._leased = False
            log.error("plan %d: %s: %s", message["generation"], type(e).__name__, e)
            if self._live is not None:
                self._live.failed("supervisor", e)
                self._live.lease_until = 0.0

    def _swap(self, message: Message) -> None:
        config = Config.from_wire(message["config"])
        self._handover_socket = message["handover_socket"]
        runs = {name: RunStatus.from_wire(run) for name, run in message["runs"].items()}
        plan = Plan(config.sidecar, config.experiments, runs)
        slots = {name: run.slot for name, run in runs.items()}
        # What can fail comes first: files may have gone since the supervisor looked.
        contexts = {name: tls_of(config, name) for name in config.sidecar.listeners}
        self._contexts, self._issuer = contexts, load_issuer(message["authority"], self._issuer)
        if self._live is None:
            self._live = WorkerState(plan, self._budget, workers=config.sidecar.workers)
            self._shared = share(self._live)
        self._live.apply_plan(plan, slots)
        self._live.lease_until, self._leased = message["lease_until"], True
        for name in [name for name in self._listeners if name not in plan.routes]:
            self._task(self._listeners.pop(name).close(self._sockets.pop(name)))
        for name in self._listeners:
            self._equip(name, plan)
        self._channel.send({"type": "applied", "generation": message["generation"]})

    def _listen(self, name: str, sock: socket.socket) -> None:
        if self._shared is None:
            raise RuntimeError("listen before plan")
        if name in self._listeners:
            self._task(self._listeners[name].close(self._sockets[name]))
        # The event loop closes the socket it is given; the next supervisor gets this one.
        self._sockets[name] = sock.dup()
        plan = self._shared.live.plan
        listener = self._listeners[name] = Listener(self._shared, plan.routes[name])
        self._equip(name, plan)
        self._task(listener.start(sock))

    def _equip(self, name: str, plan: Plan) -> None:
        listener = self._listeners[name]
        listener.route = plan.routes[name]
        listener.tls, listener.ca = self._contexts[name]
        listener.issuer = self._issuer

    def _orphaned(self) -> None:
        if not self.stop.is_set():
            log.warning("the supervisor is gone; serving on without faults")
            self._task(self._seek())

    async def _seek(self) -> None:
        """Knock where the next supervisor will be until one opens, or for `limits.orphans`."""
        if self._live is None:
            self.stop.set()  # never told what to serve
            return
        bound = self._live.plan.limits.orphans
        end = math.inf if bound is None else time.monotonic() + bound
        while not self.stop.is_set():
            if time.monotonic() > end:
                log.warning("no supervisor has come; leaving")
                self.stop.set()
            elif (door := _knock(self._handover_socket)) is not None:
                self._introduce(door)
                return
            await asyncio.sleep(_SEEK)

    def _introduce(self, door: socket.socket) -> None:
        self._channel = Channel(door, self._receive, self._orphaned)
        fds = [*(sock.fileno() for sock in self._sockets.values()), self._budget.fd]
        about = {
            "type": "orphan",
            "version": __version__,
            "pid": os.getpid(),
            "index": self._index,
            "names": list(self._sockets),
        }
        self._channel.send(about, fds)
        self._told_tasks = 0
        self._say(self._live.counters.everything() if self._live else [])

    async def beat(self) -> None:
        """Send what changed and let go of what the lease no longer covers, to the end."""
        swept = 0.0
        while True:
            self._report()
            if self._live is not None and self._live.held_faults:
                self._live.release_ended_faults()
            if self._shared is not None and time.monotonic() - swept > _SWEEP:
                swept = time.monotonic()
                for client in tuple(self._shared.clients):
                    client.close_if_idle()
            await asyncio.sleep(BEAT)

    def _report(self) -> None:
        if self._live is None or self._channel.stalled:
            return
        self._say(self._live.counters.take_changed())
        tasks = len(asyncio.all_tasks())
        if tasks != self._told_tasks:
            self._told_tasks = tasks
            self._channel.send({"type": "tasks", "count": tasks})

    def _say(self, rows: Rows) -> None:
        if rows:
            self._channel.send({"type": "cells", "from": self._incarnation, "rows": rows})

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Accept no more, let requests under way finish, close what is idle."""
        for name, listener in self._listeners.items():
            await listener.close(self._sockets[name])
        if self._live is None or self._shared is None:
            return
        self._live.draining = True
        end = time.monotonic() + self._live.plan.limits.drain
        while time.monotonic() < end:
            if not self._shared.clients:
                break
            for client in tuple(self._shared.clients):
                if not client.busy:
                    client.leave()
            await asyncio.sleep(_DRAIN_POLL)
        for client in self._shared.clients:
            client.drop_upstreams()
        await asyncio.sleep(_DRAIN_POLL)
        self._report()
        await asyncio.sleep(0)


def _knock(meeting: str) -> socket.socket | None:
    """A connection to the supervisor that listens there, if one does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(meeting)
    except OSError:
        sock.close()
        return None
    return sock
