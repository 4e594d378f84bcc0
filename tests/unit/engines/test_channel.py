"""Messages and descriptors over the local socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from counterfault.proxy.engines.channel import Channel


class End:
    """One end that remembers what it got."""

    def __init__(self, sock: socket.socket) -> None:
        self.got: list[tuple[dict[str, Any], list[int]]] = []
        self.news = asyncio.Event()
        self.gone = asyncio.Event()
        self.channel = Channel(sock, self._receive, self.gone.set)

    def _receive(self, message: dict[str, Any], fds: list[int]) -> None:
        self.got.append((message, fds))
        self.news.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()


@contextmanager
def ends() -> Iterator[tuple[End, End]]:
    made = tuple(End(sock) for sock in socket.socketpair())
    try:
        yield made[0], made[1]
    finally:
        for end in made:
            end.channel.close()


def test_messages_arrive_whole_and_in_order() -> None:
    async def talk() -> None:
        with ends() as (one, other):
            sent = [{"n": n, "text": "x" * (n * 7919)} for n in range(100)]
            for message in sent:
                one.channel.send(message)
            await other.wait(100)
            assert [message for message, _ in other.got] == sent
            assert not one.channel.stalled

    asyncio.run(talk())


def test_descriptors_come_with_their_message() -> None:
    async def talk() -> None:
        with ends() as (one, other):
            pipes = [os.pipe() for _ in range(3)]
            one.channel.send({"before": 1})
            one.channel.send({"two": 2}, [pipes[0][1], pipes[1][1]])
            one.channel.send({"big": "x" * 500_000})
            one.channel.send({"one": 1}, [pipes[2][1]])
            await other.wait(4)
            assert [len(fds) for _, fds in other.got] == [0, 2, 0, 1]
            for fd, (reader, _) in zip(
                [fd for _, fds in other.got for fd in fds], pipes, strict=True
            ):
                os.write(fd, b"hello")
                assert os.read(reader, 5) == b"hello"

    asyncio.run(talk())


def test_a_peer_that_does_not_read_stalls_the_channel_and_loses_nothing() -> None:
    async def talk() -> None:
        ours, theirs = socket.socketpair()
        one = End(ours)
        for n in range(2000):
            one.channel.send({"n": n, "text": "x" * 1000})
        assert one.channel.stalled
        other = End(theirs)
        await other.wait(2000)
        assert [message["n"] for message, _ in other.got] == list(range(2000))
        one.channel.close()
        other.channel.close()

    asyncio.run(talk())


def test_the_end_of_the_peer_is_noticed_once_after_its_last_words() -> None:
    async def talk() -> None:
        with ends() as (one, other):
            one.channel.send({"last": "words"})
            one.channel.close()
            async with asyncio.timeout(10):
                await other.gone.wait()
            assert [message for message, _ in other.got] == [{"last": "words"}]
            other.channel.send({"into": "the void"})

    asyncio.run(talk())


def test_a_channel_that_is_handed_over_loses_nothing_and_is_over_itself() -> None:
    async def talk() -> None:
        ours, theirs = socket.socketpair()
        one = End(ours)
        first: list[str] = []
        rest: list[tuple[str, int]] = []
        gone, done, never = asyncio.Event(), asyncio.Event(), asyncio.Event()

        def later(message: dict[str, Any], fds: list[int]) -> None:
            rest.append((message["text"], len(fds)))
            done.set()
            for fd in fds:
                os.close(fd)

        taken: list[Channel] = []

        def begin(message: dict[str, Any], _: list[int]) -> None:
            first.append(message["text"])
            taken.append(visitor.hand_over(later, gone.set))

        one.channel.send({"text": "I am"})
        one.channel.send({"text": "here"}, [theirs.fileno()])
        visitor = Channel(theirs, begin, never.set)
        async with asyncio.timeout(10):
            await done.wait()
            visitor.send({"text": "into the void"})
            visitor.close()
            taken[0].send({"text": "welcome"})
            await one.wait(1)
            assert (first, rest) == (["I am"], [("here", 1)])
            assert one.got == [({"text": "welcome"}, [])]
            one.channel.close()
            await gone.wait()
        assert not never.is_set()

    asyncio.run(talk())
