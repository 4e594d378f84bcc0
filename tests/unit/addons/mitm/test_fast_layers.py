"""Our way from layer to layer gives the commands that mitmproxy's gives, in its order."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from counterfault.addons.mitm import fast_layers
from counterfault.addons.mitm.options import options

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
