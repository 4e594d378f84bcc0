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


class Owner(Protocol):
    """The connection that the layers belong to."""

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an error of ours."""

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        """Await, then tell the layers that the hook is done."""


class Hooked:
    """The outermost layer's `handle_event`."""

    def __init__(self, owner: Owner, table: Table, child: layer.Layer) -> None:
        self._owner = owner
        self._table = table
        self._child = child
        self._dead = False

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """The child's commands, with writes to one connection joined."""
        held: commands.SendData | None = None
        for command in self._guarded(event):
            if isinstance(command, commands.SendData):
                if held is not None:
                    if held.connection is command.connection and len(held.data) < _CORK:
                        held.data += command.data
                        continue
                    yield held
                held = command
                continue
            if held is not None:
                yield held
                held = None
            yield command
        if held is not None:
            yield held

    def _guarded(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._dead:
            return
        try:
            yield from self._answered(event)
        except Exception as e:
            self._dead = True
            self._owner.failed("protocol", e)
            yield commands.CloseConnection(self._child.context.client)

    def _answered(self, event: events.Event) -> layer.CommandGenerator[None]:
        pending: deque[events.Event] = deque((event,))
        while pending:
            for command in self._child.handle_event(pending.popleft()):
                if not isinstance(command, commands.StartHook):
                    yield command
                    continue
                waiting = self._run(command)
                if waiting is not None:
                    self._owner.finish_later(command, waiting)
                elif command.blocking:
                    pending.append(events.HookCompleted(command))

    def _run(self, hook: commands.StartHook) -> Awaitable[None] | None:
        handlers = self._table.get(hook.name)
        if handlers is None:
            return None
        (argument,) = hook.args()
        return self._from(handlers, argument)

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
