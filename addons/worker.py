"""A worker process: `python -O -m addons.worker --control FD --budget FD --index N`.

It serves what the supervisor tells it to over the control socket, and goes on serving, without
faults, when the supervisor is gone.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from addons import tls
from addons.assign import Assign
from addons.hooks import Table
from addons.inject import Inject
from addons.listener import Client, Listener, Shared
from addons.live import Live
from addons.observe import Observe
from addons.options import options
from addons.upstream import Upstreams
from proxy.config import Config
from proxy.engines.budget import Budget
from proxy.engines.wire import Channel, Message
from proxy.guard import State
from proxy.plan import Plan

log = logging.getLogger("counterfault")

# How often counts are sent and the lease is looked at.
BEAT = 0.1
_DRAIN_POLL = 0.02


class Worker:
    """Listeners, the plan they act on, and the channel to the supervisor."""

    def __init__(self, control: socket.socket, budget: Budget) -> None:
        self._channel = Channel(control, self._receive, self._orphaned)
        self._budget = budget
        self._live: Live | None = None
        self._shared: Shared | None = None
        self._listeners: dict[str, Listener] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._incarnation = f"{os.getpid()}-{time.monotonic_ns()}"
        self.stop = asyncio.Event()

    def _receive(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "plan":
                self._swap(message)
            case "listen":
                for name, fd in zip(message["names"], fds, strict=True):
                    self._listen(name, socket.socket(fileno=fd))
            case "lease":
                if self._live is not None:
                    self._live.lease_until = message["until"]
            case other:
                log.error("unknown message %r", other)

    def _swap(self, message: Message) -> None:
        config = Config.from_wire(message["config"])
        runs = {name: _Status(**run) for name, run in message["runs"].items()}
        plan = Plan(config.sidecar, config.experiments, runs)
        slots = {name: run.slot for name, run in runs.items()}
        if self._live is None:
            self._live = Live(plan, self._budget)
            self._shared = _share(self._live)
        self._live.swap(plan, slots)
        self._live.lease_until = message["lease_until"]
        for name in [name for name in self._listeners if name not in plan.routes]:
            self._listeners.pop(name).close()
        self._contexts = {name: _tls_of(config, name) for name in config.sidecar.listeners}
        for name, listener in self._listeners.items():
            listener.tls, listener.ca = self._contexts[name]
        self._channel.send({"type": "applied", "generation": message["generation"]})

    def _listen(self, name: str, sock: socket.socket) -> None:
        if self._shared is None:
            raise RuntimeError("listen before plan")
        old = self._listeners.pop(name, None)
        if old is not None:
            old.close()
        listener = self._listeners[name] = Listener(name, self._shared)
        listener.tls, listener.ca = self._contexts[name]
        task = asyncio.ensure_future(listener.start(sock))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _orphaned(self) -> None:
        log.warning("the supervisor is gone; serving on without faults")

    async def beat(self) -> None:
        """Send what changed and let go of what the lease no longer covers, until stopped."""
        while not self.stop.is_set():
            self._report()
            if self._live is not None and self._live.holds:
                self._live.release_ended()
            await asyncio.sleep(BEAT)

    def _report(self) -> None:
        if self._live is None or self._channel.stalled:
            return
        rows = self._live.tally.take_changed()
        if rows:
            self._channel.send({"type": "cells", "from": self._incarnation, "rows": rows})

    async def drain(self) -> None:
        """Accept no more, let requests under way finish, close what is idle."""
        for listener in self._listeners.values():
            listener.close()
        if self._live is None:
            return
        self._live.draining = True
        end = time.monotonic() + self._live.plan.limits.drain
        while time.monotonic() < end:
            clients = [c for listener in self._listeners.values() for c in listener.clients]
            if not clients:
                break
            for client in clients:
                if not client.busy:
                    client.close()
            await asyncio.sleep(_DRAIN_POLL)
        self._report()
        await asyncio.sleep(0)


class _Status:
    """A run as it came over the wire."""

    def __init__(self, state: str, epoch: str, slot: int) -> None:
        self.state, self.epoch, self.slot = State(state), epoch, slot


def _tls_of(config: Config, name: str) -> tuple[Any, Path | None]:
    listener = config.sidecar.listeners[name]
    context = None
    if listener.tls is not None:
        cert, key = config.directory / listener.tls.cert, config.directory / listener.tls.key
        context = tls.listener_context(cert, key)
    return context, (config.directory / listener.ca if listener.ca else None)


def _share(live: Live) -> Shared:
    assign, inject, observe = Assign(live), Inject(live), Observe(live)
    upstreams = Upstreams(live.clock)

    def hooks(client: Client) -> Table:
        return {
            "next_layer": (("protocol", client.next_layer),),
            "tls_start_client": (("protocol", client.tls_start_client),),
            "tls_start_server": (("protocol", client.tls_start_server),),
            "requestheaders": (
                ("assign", partial(assign.requestheaders, peer=client)),
                ("inject", inject.requestheaders),
            ),
            "responseheaders": (("inject", inject.responseheaders),),
            "response": (("observe", observe.response),),
            "error": (("observe", observe.error),),
        }

    return Shared(live, options(), hooks, observe.ended, upstreams)


def _eager(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    # uvloop passes eager_start itself, which asyncio.eager_task_factory of 3.13.0-2 refuses.
    kwargs["eager_start"] = True
    return asyncio.Task(coro, loop=loop, **kwargs)


async def _main(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_eager)
    control = socket.socket(fileno=args.control)
    worker = Worker(control, Budget(args.budget, args.index))
    loop.add_signal_handler(signal.SIGTERM, worker.stop.set)
    # A terminal's ^C reaches the whole group; the supervisor decides when workers go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.set_threshold(2000, 10, 20)
    beat = asyncio.ensure_future(worker.beat())
    await worker.stop.wait()
    await worker.drain()
    await beat


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--control", "--budget", "--index"):
        parser.add_argument(name, type=int, required=True)
    args = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, format=f"worker {args.index}: %(message)s", level=logging.WARNING
    )
    uvloop.run(_main(args))


if __name__ == "__main__":
    main()
