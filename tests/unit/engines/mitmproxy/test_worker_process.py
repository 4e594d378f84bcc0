"""What a worker process is sent, and what it reports: over a real socket, without a worker."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.mitmproxy.worker_process import WorkerProcess
from counterfault.proxy.measurement.keys import InternalErrorKey


class Worker:
    """The other end of the channel; it remembers the names of the sockets that it is sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.got: list[Message] = []
        self.news = asyncio.Event()
        self.channel = Channel(sock, self._receive, lambda: None)

    def _receive(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        self.got.append(message)
        self.news.set()

    async def wait(self, count: int) -> list[str]:
        """The types of the messages so far."""
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()
        return [message["type"] for message in self.got]


@asynccontextmanager
async def running(
    reports: list[Any],
    sockets: Mapping[str, socket.socket] | None = None,
    applied: Callable[[], None] | None = None,
) -> AsyncIterator[tuple[WorkerProcess, Worker]]:
    ours, theirs = socket.socketpair()
    worker = Worker(theirs)
    process = WorkerProcess(
        partial(Channel, ours),
        os.getpid(),
        lambda incarnation, rows: reports.append((incarnation, rows)),
        applied or (lambda: None),
        sockets,
    )
    try:
        yield process, worker
    finally:
        worker.channel.close()
        async with asyncio.timeout(10):
            await process.ended.wait()


def test_a_worker_gets_each_listening_socket_once_and_anew_when_it_is_another() -> None:
    async def talk() -> None:
        with socket.socket() as a, socket.socket() as b, socket.socket() as other:
            async with running([], {"a": a}) as (process, worker):
                process.push({"type": "plan"}, 1.5, {"a": a, "b": b})
                assert await worker.wait(2) == ["plan", "listen"]
                assert worker.got[0]["lease_until"] == 1.5
                assert worker.got[1]["names"] == ["b"]
                process.push({"type": "plan"}, 2.5, {"a": a, "b": b})
                process.push({"type": "plan"}, 3.5, {"a": other})
                assert await worker.wait(5) == ["plan", "listen", "plan", "plan", "listen"]
                assert worker.got[4]["names"] == ["a"]

    asyncio.run(talk())


def test_what_a_worker_reports_is_known() -> None:
    async def talk() -> None:
        reports: list[Any] = []
        applied = asyncio.Event()
        async with running(reports, applied=applied.set) as (process, worker):
            assert (process.generation, process.tasks, process.incarnation) == (0, 0, "")
            key = InternalErrorKey("assign")
            worker.channel.send({"type": "counts", "from": "7-1", "rows": [(key, 2.0)]})
            worker.channel.send({"type": "tasks", "count": 4})
            worker.channel.send({"type": "applied", "generation": 9})
            async with asyncio.timeout(10):
                await applied.wait()
            assert (process.generation, process.tasks, process.incarnation) == (9, 4, "7-1")
            assert reports == [("7-1", [(key, 2.0)])]

    asyncio.run(talk())


def test_a_worker_that_has_stopped_reading_gets_no_lease() -> None:
    async def talk() -> None:
        async with running([]) as (process, worker):
            for _ in range(2000):
                process.push({"type": "plan", "text": "x" * 1000}, 0.0, {})
            process.renew(1.0)
            types = await worker.wait(2000)
            assert "lease" not in types
            process.renew(2.0)
            await worker.wait(2001)
            assert worker.got[-1] == {"type": "lease", "until": 2.0}

    asyncio.run(talk())
