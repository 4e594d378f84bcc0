"""Spawns workers in milliseconds: a fork server has imported all they need."""

import asyncio
import logging
import os
import socket
import sys

from counterfault.proxy.engines.channel import Channel, Message

log = logging.getLogger("counterfault")


class Spawner:
    """The parent side of `addons.worker.forkserver`.

    It starts the fork server with the first worker, and again after that process has died.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._opening = asyncio.Lock()
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._requests: dict[int, asyncio.Future[int]] = {}
        self._ticket = 0

    async def spawn(self, index: int, budget: int) -> tuple[socket.socket, int]:
        """Fork a worker. Returns its control socket and its pid.

        Args:
            index: The number of the worker.
            budget: The descriptor of the shared fault budget.

        Raises:
            OSError: No process or no descriptor is left, or the fork server has died.
        """
        async with self._opening:
            channel = self._channel = self._channel or await self._open()
        ours, theirs = socket.socketpair()
        self._ticket += 1
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._requests[self._ticket] = pid
        try:
            channel.send(
                {"type": "spawn", "ticket": self._ticket, "index": index},
                (theirs.fileno(), budget),
            )
            return ours, await pid
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End the fork server; the workers live on."""
        if self._channel is not None:
            self._channel.close()

    async def _open(self) -> Channel:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *_optimize(), "-m", "counterfault.addons.worker.forkserver"),
                *("--control", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
            )
        return Channel(ours, self._receive, self._lost)

    def _receive(self, message: Message, _: list[int]) -> None:
        pid = self._requests.pop(message["ticket"], None)
        if pid is not None and not pid.done():
            pid.set_result(message["pid"])

    def _lost(self) -> None:
        self._channel = None
        for pid in self._requests.values():
            if not pid.done():
                pid.set_exception(OSError("the fork server has ended"))
        self._requests.clear()


def _optimize() -> tuple[str, ...]:
    """`-O`, unless PYTHONOPTIMIZE is set: Python itself then obeys that (0 keeps asserts).

    Workers skip the asserts of mitmproxy, h2 and h11; why: docs/adr/0002-python-O.md.
    """
    return () if "PYTHONOPTIMIZE" in os.environ else ("-O",)
