"""mitmproxy's way of commands from layer to layer, in fewer steps: each command takes them all."""

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
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders

type Commands = layer.CommandGenerator[None]

_FOR_HTTP = (ReceiveHttp, SendHttp, DropStream, GetHttpConnection, RegisterHttpConnection)


def handle_event(self: layer.Layer, event: events.Event) -> Commands:
    """Layer's, without what it does for its debug log."""
    paused = self._paused
    if paused is None:
        generator = self._handle_event(event)
        # As in _run, which would be one more step.
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
    """Go on until the end, or until an answer is needed."""
    try:
        command = generator.send(reply)
        while command.blocking is not True:
            yield command
            command = next(generator)
    except StopIteration:
        return
    # Only this layer waits; the outer ones see that somebody does.
    command.blocking = self
    self._paused = layer.Paused(command, generator)
    yield command


def event_to_child(self: HttpLayer, child: layer.Layer, event: events.Event) -> Commands:
    """HttpLayer's, with the commands that come most often looked at first."""
    command: Any
    for command in child.handle_event(event):
        kind = _meaning(command.__class__)
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
            # What comes for a stream that is over is for nobody.
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
def _meaning(kind: type[commands.Command]) -> type[commands.Command] | None:
    """Which of the commands for the HTTP layer it is."""
    return next((meant for meant in _FOR_HTTP if issubclass(kind, meant)), None)


def install() -> None:
    """Put them in place, in a process that does nothing but serve."""
    patched: Any = layer.Layer
    patched.handle_event = handle_event
    patched = HttpLayer
    patched.event_to_child = event_to_child
