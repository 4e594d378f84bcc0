"""Runs the handlers of mitmproxy's hooks: at once, and only in a task if one has to wait."""

from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Protocol

from mitmproxy.proxy import commands, events, layer

type Handler = Callable[[Any], Awaitable[None] | None]
type Table = dict[str, tuple[tuple[str, Handler], ...]]
"""By hook name: its handlers, each with the name that its errors are counted under."""

# Bytes up to which writes to one connection are joined.
_JOINED = 1 << 16


def run_hooks_inline(
    run_inline: Callable[[commands.StartHook], bool], inner: layer.CommandGenerator[None]
) -> layer.CommandGenerator[None]:
    """Pass a layer's commands on, but run hooks that need no waiting right here.

    Such a hook does not travel through all enclosing layers and back. The hook `response` does:
    it may end the exchange, and the next exchange on the connection must not begin before the
    layer that is reading the response has finished.

    Args:
        run_inline: `HookDispatcher.run_inline` of the connection.
        inner: The layer's commands.
    """
    reply = None
    try:
        while True:
            command = inner.send(reply)
            if (
                isinstance(command, commands.StartHook)
                and command.name != "response"
                and run_inline(command)
            ):
                reply = None
            else:
                reply = yield command
    except StopIteration:
        return


class HookOwner(Protocol):
    """The client connection that the layers belong to."""

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an error of ours."""

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        """Await `waiting` in a task, then tell the layers that the hook has completed."""


class HookDispatcher:
    """The outermost layer of a connection: runs hooks, and joins writes.

    If a layer raises an error, it closes the client's connection; mitmproxy would leave both ends
    of it hanging.
    """

    def __init__(self, owner: HookOwner, table: Table, child: layer.Layer) -> None:
        """`child` is the layer that encloses all others; `table` holds the hooks' handlers."""
        self._owner = owner
        self._table = table
        self._child = child
        self._crashed = False
        self._waiting: dict[commands.StartHook, Awaitable[None]] = {}

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Return the child's commands without hooks, and with writes to one connection joined.

        All of it is one generator: each further one would be a step more for every command.
        """
        if self._crashed:
            return
        held: commands.SendData | None = None
        pending: deque[events.Event] = deque((event,))
        try:
            while pending:
                for command in self._child.handle_event(pending.popleft()):
                    if isinstance(command, commands.SendData):
                        if held is None:
                            held = command
                        elif held.connection is command.connection and len(held.data) < _JOINED:
                            held.data += command.data
                        else:
                            yield held
                            held = command
                    elif isinstance(command, commands.StartHook):
                        self._complete(command, pending)
                    elif not isinstance(command, commands.Log):  # mitmproxy logs every response
                        if held is not None:
                            yield held
                            held = None
                        yield command
        except Exception as e:
            self._crashed = True
            self._owner.failed("protocol", e)
        if held is not None:
            yield held
        if self._crashed:
            yield commands.CloseConnection(self._child.context.client)

    def run_inline(self, hook: commands.StartHook) -> bool:
        """Run a hook's handlers before its layer yields it.

        Returns:
            True if all have run. False if one waits: then the layer has to yield the hook, whose
            handlers do not run again.
        """
        waiting = self._run(hook)
        if waiting is not None:
            self._waiting[hook] = waiting
        return waiting is None

    def _complete(self, hook: commands.StartHook, pending: deque[events.Event]) -> None:
        waiting = self._waiting.pop(hook, None) or self._run(hook)
        if waiting is not None:
            self._owner.finish_later(hook, waiting)
        elif hook.blocking:
            pending.append(events.HookCompleted(hook))

    def _run(self, hook: commands.StartHook) -> Awaitable[None] | None:
        handlers = self._table.get(hook.name)
        if handlers is None:
            return None
        # The hook's only field. `hook.args()` would look up the dataclass's fields each time.
        return self._run_from(handlers, next(iter(vars(hook).values())))

    def _run_from(
        self, handlers: tuple[tuple[str, Handler], ...], argument: Any
    ) -> Awaitable[None] | None:
        for i, (where, handler) in enumerate(handlers):
            try:
                result = handler(argument)
            except Exception as e:
                self._owner.failed(where, e)
                continue
            if result is not None and isawaitable(result):
                return self._wait_and_go_on(where, result, handlers[i + 1 :], argument)
        return None

    async def _wait_and_go_on(
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
        later = self._run_from(handlers, argument)
        if later is not None:
            await later
