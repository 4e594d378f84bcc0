"""One worker process, seen from its parent: what it was sent and what it has reported."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from counterfault.proxy.engines.channel import Channel, Closed, Message, Receive
from counterfault.proxy.measurement.keys import Rows, key_from_wire

log = logging.getLogger("counterfault")

type OpenChannel = Callable[[Receive, Closed], Channel]
"""Makes the channel to a worker, with the callbacks that it shall have."""
type Report = Callable[[str, Rows], None]
"""Takes counts, with the incarnation of the worker that has counted."""


class WorkerProcess:
    """A running worker and the channel to it. `ended` is set when the channel is closed."""

    def __init__(
        self,
        open_channel: OpenChannel,
        pid: int,
        report: Report,
        applied: Callable[[], None],
        sockets: Mapping[str, socket.socket] | None = None,
    ) -> None:
        """Begin to listen to a worker.

        Args:
            open_channel: Makes the channel; called once.
            pid: The worker's process.
            report: Called with its counts.
            applied: Called when it acts on another plan.
            sockets: The listening sockets that it has already, by the name of their listener.
        """
        self.pid = pid
        self.generation = 0
        """The plan that it acts on; 0 before the first."""
        self.tasks = 0
        """Its asyncio tasks."""
        self.incarnation = ""
        """What distinguishes its counts from other processes'; empty before the first of them."""
        self.ended = asyncio.Event()
        self._report, self._applied = report, applied
        self._sockets = dict(sockets or {})
        self._channel = open_channel(self._receive, self.ended.set)

    def push(self, plan: Message, lease_until: float, sockets: Mapping[str, socket.socket]) -> None:
        """Send a plan, and those of the listening sockets that the worker does not have.

        `lease_until` in seconds of the monotonic clock.
        """
        self._channel.send({**plan, "lease_until": lease_until})
        new = [name for name, sock in sockets.items() if self._sockets.get(name) is not sock]
        if new:
            fds = [sockets[name].fileno() for name in new]
            self._channel.send({"type": "listen", "names": new}, fds)
        self._sockets = dict(sockets)

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock.

        A worker that has stopped reading gets no message: its lease runs out.
        """
        if not self._channel.stalled:
            self._channel.send({"type": "lease", "until": lease_until})

    def drain(self) -> None:
        """End its faults, so that held requests do not delay the drain, and tell it to leave."""
        self._channel.send({"type": "lease", "until": 0.0})
        self._channel.send({"type": "drain"})
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process."""
        self._signal(signal.SIGKILL)

    def leave_alone(self) -> None:
        """Close the channel; the worker serves on as an orphan."""
        self._channel.close()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _receive(self, message: Message, _: list[int]) -> None:
        match message["type"]:
            case "counts":
                self.incarnation = message["from"]
                self._report(self.incarnation, [(key_from_wire(k), v) for k, v in message["rows"]])
            case "tasks":
                self.tasks = message["count"]
            case "applied":
                self.generation = message["generation"]
                self._applied()
            case other:
                log.error("unknown message %r from worker process %d", other, self.pid)
