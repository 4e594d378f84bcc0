"""What a client's connection does about slow readers and closed connections, without sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer

from counterfault.addons.transport.connection import ClientConnection
from counterfault.addons.transport.idle import Activity
from counterfault.addons.transport.socket_protocol import SocketProtocol
from counterfault.proxy.config.sidecar import Limits


class Wire:
    """An asyncio transport that remembers what it was asked."""

    def __init__(self) -> None:
        self.sent = b""
        self.reading = True
        self.half_closed = self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


type Script = Callable[[events.Event], list[commands.Command]]


class Scripted:
    """Layers that do what a function says."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.told: list[events.Event] = []

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        self.told.append(event)
        yield from self._script(event)


class Talk(ClientConnection):
    """With a limit for what waits in the layers that a test sets."""

    limits = Limits()

    def __init__(self, script: Script) -> None:
        client = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)
        self.wire = Wire()
        self.much = self.always = False
        self.failures: list[Exception] = []
        self.ends: list[str] = []
        super().__init__(client, linked(self.wire), Activity(lambda: 0.0))
        self.layer = self.layers = Scripted(script)

    def join(self, server: Server) -> SocketProtocol:
        """As if it had been connected to."""
        server.state = ConnectionState.OPEN
        link = linked(Wire())
        link.owner, link.connection = self, server
        self._protocols[server] = link
        return link

    def congested(self, link: SocketProtocol) -> bool:
        return self.much and not (self.always and link is self.client_protocol)

    @property
    def holds_fault(self) -> bool:
        return False

    def failed(self, where: str, error: Exception) -> None:
        self.failures.append(error)

    def client_removed(self) -> None:
        self.ends.append("removed")

    def client_closed(self) -> None:
        self.ends.append("closed")


def linked(wire: Wire) -> SocketProtocol:
    link = SocketProtocol(lambda link: None)
    link.transport = cast("asyncio.Transport", wire)
    return link


def wire_of(link: SocketProtocol) -> Wire:
    return cast("Wire", link.transport)


def nothing(event: events.Event) -> list[commands.Command]:
    return []


def in_loop(test: Callable[[], Awaitable[Any]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await test()

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def told(talk: Talk, connection: Connection) -> int:
    """How often the layers have heard that a connection is closed."""
    closed = (e for e in talk.layers.told if isinstance(e, events.ConnectionClosed))
    return sum(event.connection is connection for event in closed)


@in_loop
async def test_whoever_sends_waits_until_all_can_be_sent_on() -> None:
    talk = Talk(nothing)
    upstream = talk.join(Server(address=("a", 1)))
    upstream.pause_writing()
    talk.client_protocol.data_received(b"x")
    assert not talk.wire.reading
    upstream.resume_writing()
    assert talk.wire.reading


@in_loop
async def test_a_full_connection_that_closes_keeps_nobody_waiting() -> None:
    talk = Talk(nothing)
    upstream = talk.join(Server(address=("a", 1)))
    upstream.pause_writing()
    talk.client_protocol.data_received(b"x")
    upstream.connection_lost(None)
    assert talk.wire.reading


@in_loop
async def test_whoever_sends_waits_for_the_layers_too() -> None:
    talk = Talk(nothing)
    talk.much = True
    talk.client_protocol.data_received(b"x")
    assert not talk.wire.reading
    talk.much = False
    async with asyncio.timeout(10):
        while not talk.wire.reading:  # noqa: ASYNC110 (it is polled there as well)
            await asyncio.sleep(0.001)


@in_loop
async def test_a_client_whose_windows_the_layers_wait_for_is_read_all_the_same() -> None:
    talk = Talk(nothing)
    talk.much = talk.always = True
    upstream = talk.join(Server(address=("a", 1)))
    talk.client_protocol.data_received(b"x")
    assert talk.wire.reading
    talk.client_protocol.pause_writing()
    upstream.data_received(b"x")
    talk.client_protocol.data_received(b"x")
    assert not talk.wire.reading
    talk.client_protocol.resume_writing()
    assert talk.wire.reading
    assert not wire_of(upstream).reading


@in_loop
async def test_what_is_sent_while_an_upstream_opens_counts_as_sent_to_it() -> None:
    """The loop may say that a connection is full while its owner has only heard of it."""
    server = Server(address=("a", 1))

    def script(event: events.Event) -> list[commands.Command]:
        if not isinstance(event, events.OpenConnectionCompleted):
            return []
        talk._protocols[server].pause_writing()  # as transport.write does
        return [commands.SendData(server, b"much")]

    talk = Talk(script)
    talk.upstream_connected = lambda server: None  # type: ignore[method-assign]
    talk.connecting[server] = asyncio.ensure_future(asyncio.sleep(0))
    link = SocketProtocol(lambda link: talk._opened(commands.OpenConnection(server), link))
    wire = Wire()
    wire.get_extra_info = lambda name: ("a", 1)  # type: ignore[attr-defined]
    link.connection_made(cast("asyncio.Transport", wire))
    talk.client_protocol.data_received(b"x")
    assert wire.sent == b"much"
    assert not talk.wire.reading


@in_loop
async def test_an_upstream_that_opens_in_the_moment_of_its_timeout_is_closed() -> None:
    """uvloop then closes it again without a word to its protocol."""
    server = Server(address=("a", 1))
    wire = Wire()
    wire.get_extra_info = lambda name: ("a", 1)  # type: ignore[attr-defined]

    async def too_late(protocol: Callable[[], SocketProtocol], *_: Any) -> None:
        protocol().connection_made(cast("asyncio.Transport", wire))
        raise TimeoutError

    def script(event: events.Event) -> list[commands.Command]:
        return [commands.OpenConnection(server)] if isinstance(event, events.DataReceived) else []

    asyncio.get_running_loop().create_connection = too_late  # type: ignore[assignment,method-assign]
    talk = Talk(script)
    talk.upstream_connected = lambda server: setattr(server, "timestamp_start", 1.0)  # type: ignore[method-assign]
    talk.client_protocol.data_received(b"x")
    (opening,) = talk.connecting.values()
    await opening
    assert (told(talk, server), server.state) == (1, ConnectionState.CLOSED)
    assert server not in talk._protocols


@in_loop
async def test_a_client_that_is_closed_can_read_to_the_end() -> None:
    def answer(event: events.Event) -> list[commands.Command]:
        if isinstance(event, events.DataReceived):
            return [commands.SendData(talk.client, b"no"), commands.CloseConnection(talk.client)]
        return []

    talk = Talk(answer)
    upstream = talk.join(Server(address=("a", 1)))
    talk.client_protocol.data_received(b"x")
    assert (talk.wire.sent, talk.wire.half_closed, talk.wire.closed) == (b"no", True, False)
    assert wire_of(upstream).closed
    assert told(talk, talk.client) == 1
    assert talk.ends == ["removed"]
    talk.client_protocol.data_received(b"more")  # is thrown away
    assert talk.wire.sent == b"no"
    assert not talk.client_protocol.eof_received()  # so that asyncio closes it
    talk.client_protocol.connection_lost(None)
    assert talk.ends == ["removed", "closed"]


@in_loop
async def test_a_crash_closes_the_client_and_counts() -> None:
    def crash(event: events.Event) -> list[commands.Command]:
        raise RuntimeError("oh")

    talk = Talk(crash)
    talk.client_protocol.data_received(b"x")
    assert talk.wire.closed
    assert len(talk.failures) == 1
