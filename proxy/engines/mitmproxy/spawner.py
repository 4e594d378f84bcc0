"""Workers in milliseconds: forked from a process that has imported all they need."""

import asyncio
import logging
import socket
import sys

from counterfault.proxy.engines.channel import Channel, Message

log = logging.getLogger("counterfault")


class Spawner:
    """The parent side of `addons.worker.forkserver`; opened when needed and again when it died."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._births: dict[int, asyncio.Future[int]] = {}
        self._ticket = 0

    async def birth(self, index: int, budget: int) -> tuple[socket.socket, int]:
        """A new worker's control socket and pid. Raises OSError if there is none to be had."""
        if self._channel is None:
            self._channel = await self._open()
        ours, theirs = socket.socketpair()
        self._ticket += 1
        born: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._births[self._ticket] = born
        try:
            self._channel.send(
                {"type": "birth", "ticket": self._ticket, "index": index},
                (theirs.fileno(), budget),
            )
            return ours, await born
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End it; its workers live on."""
        if self._channel is not None:
            self._channel.close()

    async def _open(self) -> Channel:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-O", "-m", "counterfault.addons.worker.forkserver"),
                *("--control", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
            )
        return Channel(ours, self._receive, self._lost)

    def _receive(self, message: Message, _: list[int]) -> None:
        born = self._births.pop(message["ticket"], None)
        if born is not None and not born.done():
            born.set_result(message["pid"])

    def _lost(self) -> None:
        self._channel = None
        for born in self._births.values():
            if not born.done():
                born.set_exception(OSError("the nursery has ended"))
        self._births.clear()
