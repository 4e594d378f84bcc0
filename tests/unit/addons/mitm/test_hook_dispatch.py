"""Hooks answered in place, joined writes, and crashes that end a connection instead of hanging."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.test import tflow

from counterfault.addons.mitm.hook_dispatch import HookDispatcher, Table, run_hooks_inline
from counterfault.addons.mitm.options import options


class Owner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.later: list[tuple[commands.StartHook, Awaitable[None]]] = []

    def failed(self, where: str, error: Exception) -> None:
        self.failures.append((where, str(error)))

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        self.later.append((hook, waiting))


class Script(layer.Layer):
    """A layer that does what a function says."""

    def __init__(self, context: Context, script: Callable[[], Iterator[Any]]) -> None:
        super().__init__(context)
        self._script = script

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self._script()


def run(script: Callable[[], Iterator[Any]], table: Table) -> tuple[list[Any], Owner]:
    client = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)
    owner = Owner()
    hooked = HookDispatcher(owner, table, Script(Context(client, options()), script))
    return list(hooked.handle_event(events.Start())), owner


CONNECTION = Server(address=("a", 1))
OTHER = Server(address=("b", 1))


def test_a_hook_without_handlers_costs_no_round_trip() -> None:
    def script() -> Iterator[Any]:
        yield HttpRequestHook(tflow.tflow())
        yield commands.SendData(CONNECTION, b"after")

    sent, _ = run(script, {})
    assert [c.data for c in sent] == [b"after"]


def test_handlers_run_in_order_and_one_that_fails_is_passed_over() -> None:
    calls: list[str] = []

    def fail(_: Any) -> None:
        raise RuntimeError("oh")

    def script() -> Iterator[Any]:
        yield HttpRequestHook(tflow.tflow())
        yield commands.SendData(CONNECTION, b"after")

    handlers = (("a", lambda _: calls.append("a")), ("b", fail), ("c", lambda _: calls.append("c")))
    sent, owner = run(script, {"request": handlers})
    assert calls == ["a", "c"]
    assert owner.failures == [("b", "oh")]
    assert [c.data for c in sent] == [b"after"]


def test_a_handler_that_waits_pauses_the_layer_and_the_next_handlers() -> None:
    calls: list[str] = []

    async def wait() -> None:
        calls.append("waited")
        raise RuntimeError("late")

    def script() -> Iterator[Any]:
        yield HttpRequestHook(tflow.tflow())
        yield commands.SendData(CONNECTION, b"after")

    handlers = (("a", lambda _: wait()), ("b", lambda _: calls.append("b")))
    sent, owner = run(script, {"request": handlers})
    assert sent == []
    ((_, waiting),) = owner.later
    asyncio.run(_await(waiting))
    assert calls == ["waited", "b"]
    assert owner.failures == [("a", "late")]


class Asking(Script):
    """A layer that asks before it yields a hook."""

    hooked: HookDispatcher

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        return run_hooks_inline(self.hooked.run_inline, super()._handle_event(event))


def asking(script: Callable[[], Iterator[Any]], table: Table) -> tuple[Asking, Owner]:
    client = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)
    made, owner = Asking(Context(client, options()), script), Owner()
    made.hooked = HookDispatcher(owner, table, made)
    return made, owner


def test_a_layer_that_asks_first_does_not_pause_for_hooks_that_are_done() -> None:
    calls: list[str] = []

    def script() -> Iterator[Any]:
        said = yield HttpRequestHook(tflow.tflow())
        yield commands.SendData(CONNECTION, repr(said).encode())

    made, _ = asking(script, {"request": (("a", lambda _: calls.append("a")),)})
    # Not even the layer's own commands have the hook among them.
    sent: list[Any] = list(made.handle_event(events.Start()))
    assert [c.data for c in sent] == [b"None"]
    assert calls == ["a"]


def test_a_layer_that_asks_first_pauses_for_one_that_waits_which_runs_once() -> None:
    calls: list[str] = []

    async def wait() -> None:
        calls.append("waited")

    def begin(_: Any) -> Awaitable[None]:
        calls.append("begun")
        return wait()

    def script() -> Iterator[Any]:
        yield HttpRequestHook(tflow.tflow())
        yield commands.SendData(CONNECTION, b"after")

    made, owner = asking(script, {"request": (("a", begin),)})
    assert list(made.hooked.handle_event(events.Start())) == []
    ((hook, waiting),) = owner.later
    asyncio.run(_await(waiting))
    assert calls == ["begun", "waited"]
    sent: list[Any] = list(made.hooked.handle_event(events.HookCompleted(hook)))
    assert [c.data for c in sent] == [b"after"]


async def _await(waiting: Awaitable[None]) -> None:
    await waiting


def test_writes_to_one_connection_are_joined_and_stay_in_order() -> None:
    def script() -> Iterator[Any]:
        yield commands.SendData(CONNECTION, b"1")
        yield commands.SendData(CONNECTION, b"2")
        yield commands.SendData(OTHER, b"3")
        yield commands.SendData(CONNECTION, b"4")
        yield commands.CloseConnection(CONNECTION)

    sent, _ = run(script, {})
    assert [getattr(c, "data", "close") for c in sent] == [b"12", b"3", b"4", "close"]


def test_a_layer_that_crashes_closes_the_connection_once_and_is_counted() -> None:
    def script() -> Iterator[Any]:
        yield commands.SendData(CONNECTION, b"before")
        raise AssertionError("broken")

    client = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)
    owner = Owner()
    hooked = HookDispatcher(owner, {}, Script(Context(client, options()), script))
    sent = list(hooked.handle_event(events.Start()))
    assert isinstance(sent[-1], commands.CloseConnection)
    assert sent[-1].connection is client
    assert owner.failures == [("protocol", "broken")]
    assert list(hooked.handle_event(events.Start())) == []
