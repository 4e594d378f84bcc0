"""Orphans and the next supervisor find the running one by its socket."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.handover import (
    SOCKET_NAME,
    HandoverSocket,
    replace_predecessor,
)


class Supervisor:
    """Adopts all orphans, and leaves when it is asked to."""

    def __init__(self, state_dir: Path) -> None:
        self.orphans: list[tuple[Message, int]] = []
        self.later: list[Message] = []
        self.channels: list[Channel] = []
        self.news = asyncio.Event()
        self.socket = HandoverSocket(state_dir, self.adopt, self.leave)

    def adopt(self, channel: Channel, message: Message, fds: list[int]) -> None:
        self.orphans.append((message, len(fds)))
        for fd in fds:
            os.close(fd)
        self.channels.append(channel.hand_over(self.receive, lambda: None))

    def receive(self, message: Message, _: list[int]) -> None:
        self.later.append(message)
        self.news.set()

    def leave(self) -> None:
        self.socket.close()


def connect(state_dir: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(state_dir / SOCKET_NAME))
    return sock


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_an_orphan_is_adopted_with_its_sockets_and_all_it_has_said(tmp_path: Path) -> None:
    async def talk() -> None:
        supervisor = Supervisor(tmp_path)
        supervisor.socket.open()
        orphan = Channel(connect(tmp_path), lambda message, fds: None, lambda: None)
        with socket.socket() as listening:
            orphan.send({"type": "orphan", "index": 3}, [listening.fileno()])
        orphan.send({"type": "counts"})
        await supervisor.news.wait()
        assert supervisor.orphans == [({"type": "orphan", "index": 3}, 1)]
        assert supervisor.later == [{"type": "counts"}]
        supervisor.socket.close()  # an adopted worker stays
        orphan.send({"type": "tasks"})
        supervisor.news.clear()
        await supervisor.news.wait()
        assert supervisor.later[1:] == [{"type": "tasks"}]
        for channel in (orphan, *supervisor.channels):
            channel.close()

    run(talk())


def test_a_supervisor_that_is_asked_to_leaves_and_its_socket_goes(tmp_path: Path) -> None:
    async def talk() -> None:
        supervisor = Supervisor(tmp_path)
        supervisor.socket.open()
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        await replace_predecessor(tmp_path)
        assert not (tmp_path / SOCKET_NAME).exists()

    run(talk())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shortens the address")
def test_a_state_directory_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "state"

    async def talk() -> None:
        supervisor = Supervisor(deep)
        supervisor.socket.open()
        assert (deep / SOCKET_NAME).is_socket()
        await replace_predecessor(deep)
        assert not (deep / SOCKET_NAME).exists()

    run(talk())


def test_where_no_supervisor_is_there_is_nothing_to_replace(tmp_path: Path) -> None:
    run(replace_predecessor(tmp_path / "missing"))


def test_a_visitor_that_leaves_or_talks_nonsense_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk() -> None:
        supervisor = Supervisor(tmp_path)
        supervisor.socket.open()
        connect(tmp_path).close()
        gone = asyncio.Event()
        visitor = Channel(connect(tmp_path), lambda message, fds: None, gone.set)
        visitor.send({"type": "hello"})
        while not caplog.messages:  # noqa: ASYNC110 (a log sends no event)
            await asyncio.sleep(0.01)
        supervisor.socket.close()
        await gone.wait()

    run(talk())
    assert [m for m in caplog.messages if "hello" in m] == [
        f"unknown message 'hello' at {tmp_path / SOCKET_NAME}"
    ]
