"""The mitmproxy engine's parent side: binds the sockets, runs the workers, keeps them running."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from counterfault import __version__
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.keeper import STOP_GRACE, ChangeSignal, keep_running
from counterfault.proxy.engines.mitmproxy.slots import Slot, Slots
from counterfault.proxy.engines.mitmproxy.spawner import Spawner
from counterfault.proxy.engines.mitmproxy.worker_process import OpenChannel, Report, WorkerProcess
from counterfault.proxy.engines.ports import why_taken
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import host_port

log = logging.getLogger("counterfault")

# Seconds that orphans may take to bring the sockets of ports that a new supervisor finds taken.
_ORPHANS = 2.0


class WorkerPool:
    """N worker processes that share each listener's port."""

    def __init__(
        self,
        count: int,
        budget: Budget,
        report: Report,
        gone: Callable[[str], None],
        handover_socket: str = "",
        authority_file: Callable[[Path, Sidecar], Path | None] = lambda directory, sidecar: None,
    ) -> None:
        """Prepare the pool; `start` begins to spawn workers.

        Args:
            count: How many workers to run.
            budget: The fault counters that all workers share.
            report: Called with a worker's incarnation and its counts.
            gone: Called with the incarnation of a worker that has ended.
            handover_socket: The path at which orphans find the next supervisor.
            authority_file: Returns the file of the CA that signs for intercepted hosts, if any.
        """
        self.budget = budget
        self._report, self._gone = report, gone
        self._handover_socket, self._authority_file = handover_socket, authority_file
        self._spawner = Spawner()
        self._slots = Slots(count)
        self._plan: Message = {}
        self._generation = 0
        self._lease_until = 0.0
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._changed = ChangeSignal()

    async def inherit(self, config: Config) -> None:
        """Give orphans the time to bring our ports, where another process has them."""
        wanted = {host_port(listener.listen) for listener in config.sidecar.listeners.values()}
        if not any(why_taken(address) for address in wanted):
            return
        # Wait for all of them: the kernel would share an orphan's queue with a socket made earlier.
        with suppress(TimeoutError):
            async with asyncio.timeout(_ORPHANS):
                while not all(slot.worker for slot in self._slots):
                    await self._changed.wait()

    def adopt(self, channel: Channel, message: Message, fds: list[int]) -> None:
        """Take over a worker that has lost its supervisor, with its sockets.

        Args:
            channel: The channel that the worker has opened.
            message: What it says about itself: its version, pid, index and listeners.
            fds: Descriptors of its listening sockets, then that of its fault budget.
        """
        *sockets, shared = fds
        slot = next((s for s in self._slots if s.index == message["index"]), None)
        held = {
            n: socket.socket(fileno=fd) for n, fd in zip(message["names"], sockets, strict=True)
        }
        if slot is None or slot.worker is not None or self._keepers or self._stopping.is_set():
            for sock in held.values():
                sock.close()
            os.close(shared)
            channel.send({"type": "drain"})
            return
        if not any(s.worker for s in self._slots):
            self.budget.adopt(shared)
        else:
            os.close(shared)
        slot.sockets.update(held)
        if message["version"] != __version__:
            channel.send({"type": "drain"})  # it may not understand us; its sockets go on
        else:
            self._attach(slot, channel.hand_over, message["pid"], held)
            log.info("worker %d (pid %d) is adopted", slot.index, message["pid"])
        self._changed.notify()

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners, close removed ones. Raises PortTaken."""
        self._slots.bind(config)

    def sockets(self) -> dict[str, socket.socket]:
        """One of each listener's sockets."""
        return self._slots.sockets()

    def start(self) -> None:
        """Begin to run the workers."""
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in self._slots]

    async def prepare(self, config: Config) -> None:
        """Do nothing: running workers have all that a plan needs."""

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Send a plan to all workers. Returns its generation, for `wait_applied`.

        `lease_until` in seconds of the monotonic clock.
        """
        self._generation += 1
        self._lease_until = lease_until
        authority = self._authority_file(config.directory, config.sidecar)
        self._plan = {
            "type": "plan",
            "generation": self._generation,
            "config": config.wire(),
            "runs": {name: run.to_wire() for name, run in runs.items()},
            "handover_socket": self._handover_socket,
            "authority": str(authority) if authority else None,
        }
        for slot in self._slots:
            self._push_to(slot)
        return self._generation

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock."""
        self._lease_until = lease_until
        for worker in self._workers:
            worker.renew(lease_until)

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""
        return sum(0 < worker.generation == self._generation for worker in self._workers)

    @property
    def serves(self) -> bool:
        """Whether a worker acts on any plan."""
        return any(worker.generation for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return [worker.pid for worker in self._workers]

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all of them."""
        return sum(worker.tasks for worker in self._workers)

    async def wait_applied(self, generation: int) -> None:
        """Wait until every running worker acts on a plan at least as new."""
        while not all(worker.generation >= generation for worker in self._workers):
            await self._changed.wait()

    async def wait_serving(self) -> None:
        """Wait until every worker acts on the present plan."""
        while self.ready < len(self._slots):
            await self._changed.wait()

    async def stop(self, grace: float) -> None:
        """Drain all workers, and kill each that is still there `grace` and 5 seconds later."""
        self._stopping.set()
        self._slots.close()
        for worker in self._workers:
            worker.drain()
        _, late = await asyncio.wait(self._keepers, timeout=grace + STOP_GRACE)
        for slot in self._slots:
            if late and slot.worker is not None:
                log.warning("worker %d does not exit; killed", slot.index)
                slot.worker.kill()
        if late:
            await asyncio.wait(late)
        self._spawner.close()

    def abandon(self) -> None:
        """Leave the workers to the next supervisor."""
        self._stopping.set()
        for worker in self._workers:
            worker.leave_alone()
        self._spawner.close()

    @property
    def _workers(self) -> list[WorkerProcess]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    async def _keep(self, slot: Slot) -> None:
        await keep_running(
            f"worker {slot.index}",
            partial(self._spawn_into, slot),
            partial(self._ended, slot),
            self._stopping.is_set,
        )

    async def _spawn_into(self, slot: Slot) -> None:
        if slot.worker is not None:
            return
        control, pid = await self._spawner.spawn(slot.index, self.budget.fd)
        if self._stopping.is_set():
            control.close()  # it has no plan yet, and leaves
        else:
            self._attach(slot, partial(Channel, control), pid)

    async def _ended(self, slot: Slot) -> str:
        """Wait for the end of a slot's worker and empty the slot."""
        worker = slot.worker
        if worker is not None:
            await worker.ended.wait()
            slot.worker = None
            self._gone(worker.incarnation)
            self.budget.clear_worker(slot.index)
            self._changed.notify()
        return ""

    def _attach(
        self,
        slot: Slot,
        open_channel: OpenChannel,
        pid: int,
        sockets: Mapping[str, socket.socket] | None = None,
    ) -> None:
        slot.worker = WorkerProcess(open_channel, pid, self._report, self._changed.notify, sockets)
        self._push_to(slot)

    def _push_to(self, slot: Slot) -> None:
        if self._plan and slot.worker is not None:
            slot.worker.push(self._plan, self._lease_until, slot.sockets)
