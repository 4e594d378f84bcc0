"""Our way from layer to layer gives the commands that mitmproxy's gives, in its order."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    HTTPMode,
    RegisterHttpConnection,
    SendHttp,
)
from mitmproxy.test import tflow

from counterfault.addons.mitm import fast_layers
from counterfault.addons.mitm.options import options
from counterfault.addons.mitm.private import (
    HttpRequestHeadersHook,
    ReceiveHttp,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
)

CLIENT = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)

type Handle = Callable[[layer.Layer, events.Event], layer.CommandGenerator[None]]


class Asking(layer.Layer):
    """Sends what comes; for each `?` it opens a connection and sends how that went."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, events.DataReceived):
            return
        for byte in event.data.decode():
            if byte == "?":
                error = yield commands.OpenConnection(Server(address=("a", 1)))
                yield commands.SendData(CLIENT, str(error).encode())
            else:
                yield commands.SendData(CLIENT, byte.encode())


def said(handle: Handle, script: list[str]) -> list[str]:
    """What a layer says to data, and to `!`: the answer to the oldest question."""
    asking = Asking(Context(CLIENT, options()))
    asked: list[commands.OpenConnection] = []
    seen = []
    for number, data in enumerate(script):
        event: events.Event = events.DataReceived(CLIENT, data.encode())
        if data == "!":
            if not asked:
                continue
            event = events.OpenConnectionCompleted(asked.pop(0), f"e{number}")
        for command in handle(asking, event):
            seen.append(f"{number} {type(command).__name__} {command.blocking is asking}")
            if isinstance(command, commands.OpenConnection):
                asked.append(command)
            elif isinstance(command, commands.SendData):
                seen.append(command.data.decode())
    return seen


@given(st.lists(st.one_of(st.just("!"), st.text("ab?", max_size=5))))
def test_they_say_the_same(script: list[str]) -> None:
    assert said(fast_layers.handle_event, script) == said(layer.Layer.handle_event, script)


def test_the_comparison_sees_answers_and_what_waited_for_them() -> None:
    seen = said(fast_layers.handle_event, ["a?b", "c", "!"])
    assert [s for s in seen if " " not in s] == ["a", "e2", "b", "c"]


type ToChild = Callable[[HttpLayer, layer.Layer, events.Event], layer.CommandGenerator[None]]
type Op = tuple[str, int]

NUMBERS = 3
ops = st.tuples(
    st.sampled_from(
        [
            "send",
            "open",
            "wakeup",
            "hook",
            "log",
            "head",
            "data",
            "end",
            "pass",
            "drop",
            "get",
            "own-get",
            "register",
        ]
    ),
    st.integers(1, NUMBERS),
)


class OwnGet(GetHttpConnection):
    """A subclass, as the product has one."""


class Fixed(layer.Layer):
    """A child that yields the next list of the script, whatever comes."""

    def __init__(self, context: Context, world: "World", label: str) -> None:
        super().__init__(context)
        self.world, self.label = world, label

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        self.world.log(f"{self.label} is told {type(event).__name__}")
        for op in self.world.script.pop(0) if self.world.script else []:
            yield self.world.command(op)

    _handle_event = handle_event


class World(HttpLayer):
    """An HTTP layer that notes what it is asked, with children that follow a script."""

    def __init__(self, to_child: ToChild, script: list[list[Op]]) -> None:
        super().__init__(Context(CLIENT, options()), HTTPMode.transparent)
        self.to_child, self.script = to_child, [list(each) for each in script]
        self.notes: list[str] = []
        self.made: list[commands.Command] = []
        self.servers = [Server(address=("a", i)) for i in range(NUMBERS + 1)]
        for i, server in enumerate(self.servers):
            self.connections[server] = Fixed(self.context, self, f"connection {i}")

    def log(self, note: str) -> None:
        self.notes.append(note)

    def number(self, command: commands.Command) -> int:
        """A command's place among those made; -1 for others. They have no useful equality."""
        return next((i for i, made in enumerate(self.made) if made is command), -1)

    def command(self, op: Op) -> commands.Command:
        name, i = op
        server = self.servers[i]
        kinds: dict[str, Callable[[], commands.Command]] = {
            "send": lambda: commands.SendData(server, b"x"),
            "open": lambda: commands.OpenConnection(server),
            "wakeup": lambda: commands.RequestWakeup(1.0),
            "hook": lambda: HttpRequestHeadersHook(tflow.tflow()),
            "log": lambda: commands.Log("x"),
            "head": lambda: ReceiveHttp(RequestHeaders(i, tflow.tflow().request, end_stream=False)),
            "data": lambda: ReceiveHttp(RequestData(i, b"x")),
            "end": lambda: ReceiveHttp(RequestEndOfMessage(i)),
            "pass": lambda: SendHttp(RequestData(i, b"x"), server),
            "drop": lambda: DropStream(i),
            "get": lambda: GetHttpConnection(("a", i), False, None, "tcp"),
            "own-get": lambda: OwnGet(("a", i), False, None, "tcp"),
            "register": lambda: RegisterHttpConnection(server, None),
        }
        self.made.append(kinds[name]())
        return self.made[-1]

    def event_to_child(self, child: Any, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.to_child(self, child, event)

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        self.log(f"make stream {stream_id}")
        made: Any = Fixed(self.context, self, f"stream {stream_id}.{len(self.notes)}")
        self.streams[stream_id] = made
        yield from self.to_child(self, made, events.Start())

    def get_connection(
        self, event: GetHttpConnection, *, reuse: bool = True
    ) -> layer.CommandGenerator[None]:
        self.log(f"get {self.number(event)} {event in self.command_sources}")
        yield commands.Log("getting")

    def register_connection(self, command: RegisterHttpConnection) -> layer.CommandGenerator[None]:
        self.log(f"register {self.number(command)}")
        yield commands.Log("registering")

    def state(self) -> dict[str, Any]:
        """All that the function may have changed, without what differs from run to run."""
        numbers: dict[Connection, int] = {server: i for i, server in enumerate(self.servers)}
        label: Any = lambda child: child.label  # noqa: E731
        return {
            "notes": self.notes,
            "sources": [(type(c), label(of)) for c, of in self.command_sources.items()],
            "connections": {numbers[c]: label(of) for c, of in self.connections.items()},
            "streams": {i: label(stream) for i, stream in self.streams.items()},
        }


def passed(to_child: ToChild, script: list[list[Op]]) -> tuple[list[str], dict[str, Any]]:
    """What comes out of the layer, and what it has then noted, when a connection tells it."""
    world = World(to_child, script)
    seen = []
    for command in to_child(world, world.connections[world.servers[0]], events.Start()):
        seen.append(f"{world.number(command)} {type(command).__name__} {len(world.notes)}")
    return seen, world.state()


@given(st.lists(st.lists(ops, max_size=6), max_size=8))
def test_the_http_layer_passes_on_the_same(script: list[list[Op]]) -> None:
    assert passed(fast_layers.event_to_child, script) == passed(HttpLayer.event_to_child, script)


def test_the_comparison_sees_streams_sources_and_connections() -> None:
    script = [
        [("head", 1), ("data", 1), ("pass", 2), ("data", 3), ("own-get", 1), ("register", 2)],
        [("open", 3)],
        [],
        [("hook", 1)],
        [("send", 1)],
    ]
    seen, state = passed(HttpLayer.event_to_child, script)
    assert [line.split()[1] for line in seen] == [
        *("OpenConnection", "HttpRequestHeadersHook", "SendData", "Log", "Log")
    ]
    assert sorted(of for _, of in state["sources"]) == ["connection 0", "stream 1.2", "stream 1.2"]
    assert (state["connections"][3], list(state["streams"])) == ("stream 1.2", [1])
