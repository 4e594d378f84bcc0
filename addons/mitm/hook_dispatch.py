"""mitmproxy's hooks, answered in place: only a hook that must wait costs a task.

`Hooked` wraps a connection's layers. It joins writes, and it closes a connection whose layers
crash, since mitmproxy would leave both ends hanging.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Protocol

from mitmproxy.proxy import commands, events, layer

type Handler = Callable[[Any], Awaitable[None] | None]
type Table = dict[str, tuple[tuple[str, Handler], ...]]
"""For each hook's name its handlers, each with the name its failures are counted under."""

_CORK = 1 << 16


def in_place(
    answers: Callable[[commands.StartHook], bool], inner: layer.CommandGenerator[None]
) -> layer.CommandGenerator[None]:
    """A layer's commands; its hooks for which nobody waits do not go through all other layers.

    But for the answer's: with it an exchange may be over, and the next one on the same connection
    must not begin before the layer that has read the answer to its end is done with this one.
    """
    reply = None
    try:
        while True:
            command = inner.send(reply)
            if (
                isinstance(command, commands.StartHook)
                and command.name != "response"
                and answers(command)
            ):
                reply = None
            else:
                reply = yield command
    except StopIteration:
        return


class HookOwner(Protocol):
    """The connection that the layers belong to."""

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an error of ours."""

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        """Await, then tell the layers that the hook is done."""


class HookDispatcher:
    """The outermost layer's `handle_event`."""

    def __init__(self, owner: HookOwner, table: Table, child: layer.Layer) -> None:
        self._owner = owner
        self._table = table
        self._child = child
        self._dead = False
        self._waiting: dict[commands.StartHook, Awaitable[None]] = {}

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """The child's commands but hooks, with writes to one connection joined.

        One generator for all of it: each more would be another step for every command.
        """
        if self._dead:
            return
        held: commands.SendData | None = None
        pending: deque[events.Event] = deque((event,))
        try:
            while pending:
                for command in self._child.handle_event(pending.popleft()):
                    if isinstance(command, commands.SendData):
                        if held is None:
                            held = command
                        elif held.connection is command.connection and len(held.data) < _CORK:
                            held.data += command.data
                        else:
                            yield held
                            held = command
                    elif isinstance(command, commands.StartHook):
                        self._answer(command, pending)
                    elif not isinstance(command, commands.Log):  # one comes with every answer
                        if held is not None:
                            yield held
                            held = None
                        yield command
        except Exception as e:
            self._dead = True
            self._owner.failed("protocol", e)
        if held is not None:
            yield held
        if self._dead:
            yield commands.CloseConnection(self._child.context.client)

    def answers(self, hook: commands.StartHook) -> bool:
        """For a layer that asks before it yields a hook: True if it may go on instead."""
        waiting = self._run(hook)
        if waiting is not None:
            self._waiting[hook] = waiting
        return waiting is None

    def _answer(self, hook: commands.StartHook, pending: deque[events.Event]) -> None:
        waiting = self._waiting.pop(hook, None) or self._run(hook)
        if waiting is not None:
            self._owner.finish_later(hook, waiting)
        elif hook.blocking:
            pending.append(events.HookCompleted(hook))

    def _run(self, hook: commands.StartHook) -> Awaitable[None] | None:
        handlers = self._table.get(hook.name)
        if handlers is None:
            return None
        # Its only field; args() looks at the dataclass's fields each time.
        return self._from(handlers, next(iter(vars(hook).values())))

    def _from(
        self, handlers: tuple[tuple[str, Handler], ...], argument: Any
    ) -> Awaitable[None] | None:
        for i, (where, handler) in enumerate(handlers):
            try:
                result = handler(argument)
            except Exception as e:
                self._owner.failed(where, e)
                continue
            if result is not None and isawaitable(result):
                return self._rest(where, result, handlers[i + 1 :], argument)
        return None

    async def _rest(
        self,
        where: str,
        waiting: Awaitable[None],
        handlers: tuple[tuple[str, Handler], ...],
        argument: Any,
    ) -> None:
        try:
            await waiting
        except Exception as e:
            self._owner.failed(where, e)
        later = self._from(handlers, argument)
        if later is not None:
            await later
