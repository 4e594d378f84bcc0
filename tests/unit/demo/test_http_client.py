"""The demo's HTTP client against real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest

from counterfault.proxy.demo.http_client import FAILED, HttpAnswer, HttpClient

type Talk = Callable[[HttpClient, str], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Server:
    """Answers every request with the next of some bytes; None closes without a word."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with closing(writer):
            while self.answers:
                try:
                    self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                except asyncio.IncompleteReadError:
                    return
                answer = self.answers.pop(0)
                if answer is None:
                    return
                writer.write(answer)


def talk(server: Server, what: Talk) -> None:
    """Let a client talk to a server on a port of its own."""

    async def run() -> None:
        client = HttpClient()
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            await what(client, f"http://127.0.0.1:{port}/a")
            client.close()

    asyncio.run(run())


def test_a_connection_is_used_again() -> None:
    server = Server(OK, OK)

    async def what(client: HttpClient, url: str) -> None:
        for _ in range(2):
            assert await client.ask(url, {"x-user-id": "u"}) == HttpAnswer(200, b"hi")

    talk(server, what)
    assert server.connections == 1
    assert server.requests[0].startswith(b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nx-user-id: u\r\n" in server.requests[0]


def test_a_body_is_posted_as_json() -> None:
    server = Server(OK)

    async def what(client: HttpClient, url: str) -> None:
        await client.ask(url, {}, {"a": 1})

    talk(server, what)
    assert server.requests[0].startswith(b"POST /a HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 8\r\n" in server.requests[0]


@pytest.mark.parametrize(
    "last", [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK], ids=["said", "done"]
)
def test_a_connection_that_the_server_ends_is_not_used_again(last: bytes) -> None:
    server = Server(last)

    async def what(client: HttpClient, url: str) -> None:
        await client.ask(url, {})
        for reader, _ in client.idle(url):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        server.answers.append(OK)
        await client.ask(url, {})

    talk(server, what)
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\n\r\nhi",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        b"x" * 100_000,
    ],
    ids=["no answer", "cut", "no length", "no HTTP", "a negative length", "an endless head"],
)
def test_a_broken_answer_is_a_failure(answer: bytes | None) -> None:
    async def what(client: HttpClient, url: str) -> None:
        with pytest.raises(FAILED):
            await client.ask(url, {})

    talk(Server(answer), what)


def test_a_late_answer_is_a_failure_and_costs_the_connection() -> None:
    server = Server(b"", OK)

    async def what(client: HttpClient, url: str) -> None:
        with pytest.raises(FAILED):
            await client.ask(url, {}, timeout=0.1)
        assert await client.ask(url, {}) == HttpAnswer(200, b"hi")

    talk(server, what)
    assert server.connections == 2


def test_nobody_there_is_a_failure() -> None:
    async def run() -> None:
        with pytest.raises(FAILED):
            await HttpClient().ask("http://127.0.0.1:1/", {})

    asyncio.run(run())
