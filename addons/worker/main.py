"""The process around a worker: its event loop, its signals and its limits."""

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from counterfault.addons.worker.worker import Worker
from counterfault.proxy.engines.fault_budget import Budget


def eager(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    # uvloop passes eager_start itself, which asyncio.eager_task_factory of 3.13.0-2 refuses.
    kwargs["eager_start"] = True
    return asyncio.Task(coro, loop=loop, **kwargs)


async def _main(control: socket.socket, budget: int, index: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager)
    worker = Worker(control, Budget(budget, index), index)
    loop.add_signal_handler(signal.SIGTERM, worker.stop.set)
    # A terminal's ^C reaches the whole group; the supervisor decides when workers go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Long-lived flows would otherwise be looked at again and again; more costs too much at once.
    gc.set_threshold(2000, 10, 20)
    beat = asyncio.ensure_future(worker.beat())
    await worker.stop.wait()
    await worker.drain()
    beat.cancel()


def run(control: socket.socket, budget: int, index: int) -> None:
    """Be worker `index` until told to stop; `budget` is the descriptor of the shared counters."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(
        stream=sys.stderr, format=f"worker {index}: %(message)s", level=logging.WARNING
    )
    uvloop.run(_main(control, budget, index))
