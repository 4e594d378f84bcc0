"""Faster versions of how mitmproxy hands commands from layer to layer, with the same results.

Every command passes through each layer that encloses the one it comes from, so each generator
and each comparison that is left out here is saved many times per request.
"""

from functools import lru_cache
from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    RegisterHttpConnection,
    SendHttp,
)

from counterfault.addons.mitm.private import LAYER_DISPATCH, ReceiveHttp, RequestHeaders
from counterfault.addons.mitm.replacement import Replacement

type Commands = layer.CommandGenerator[None]

_HTTP_COMMANDS = (ReceiveHttp, SendHttp, DropStream, GetHttpConnection, RegisterHttpConnection)


def handle_event(self: layer.Layer, event: events.Event) -> Commands:
    """Stand in for `Layer.handle_event`, without its debug log."""
    paused = self._paused
    if paused is None:
        generator = self._handle_event(event)
        # Inlined from `_run`: a call would be one more generator for every command.
        for command in generator:
            if command.blocking is True:
                command.blocking = self
                self._paused = layer.Paused(command, generator)
                yield command
                return
            yield command
    elif isinstance(event, events.CommandCompleted) and event.command is paused.command:
        self._paused = None
        yield from _run(self, paused.generator, event.reply)
        waiting = self._paused_event_queue
        while waiting and not self._paused:
            yield from _run(self, self._handle_event(waiting.popleft()), None)
    else:
        self._paused_event_queue.append(event)


def _run(self: layer.Layer, generator: Commands, reply: Any) -> Commands:
    """Resume a generator with a reply, up to its end or to its next blocking command."""
    try:
        command = generator.send(reply)
        while command.blocking is not True:
            yield command
            command = next(generator)
    except StopIteration:
        return
    # This layer waits. The enclosing layers test for `is True`, and do not wait with it.
    command.blocking = self
    self._paused = layer.Paused(command, generator)
    yield command


def event_to_child(self: HttpLayer, child: layer.Layer, event: events.Event) -> Commands:
    """Stand in for `HttpLayer.event_to_child`, with one look-up per command's class."""
    command: Any
    for command in child.handle_event(event):
        kind = _http_command(command.__class__)
        if kind is None:
            if command.blocking or isinstance(command, commands.RequestWakeup):
                self.command_sources[command] = child
            if isinstance(command, commands.OpenConnection):
                self.connections[command.connection] = child
            yield command
        elif kind is ReceiveHttp:
            inner = command.event
            if isinstance(inner, RequestHeaders):
                yield from self.make_stream(inner.stream_id)
            # Data may still come for a stream that has been dropped.
            stream = self.streams.get(inner.stream_id)
            if stream is not None:
                yield from event_to_child(self, stream, inner)
        elif kind is SendHttp:
            yield from event_to_child(self, self.connections[command.connection], command.event)
        elif kind is DropStream:
            self.streams.pop(command.stream_id, None)
        elif kind is GetHttpConnection:
            self.command_sources[command] = child
            yield from self.get_connection(command)
        else:
            yield from self.register_connection(command)


@lru_cache(256)
def _http_command(kind: type[commands.Command]) -> type[commands.Command] | None:
    """Return which command for the HTTP layer a class is or derives from; None for others."""
    return next((command for command in _HTTP_COMMANDS if issubclass(kind, command)), None)


REPLACEMENTS = (
    Replacement(
        "Layer.handle_event",
        layer.Layer,
        "handle_event",
        handle_event,
        LAYER_DISPATCH,
        "365d11531fdfafe7",
    ),
    Replacement(
        "HttpLayer.event_to_child",
        HttpLayer,
        "event_to_child",
        event_to_child,
        (HttpLayer.event_to_child,),
        "df13c04d2537a3c9",
    ),
)
