"""The process of a worker: its event loop, its signals and its limits."""

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

from counterfault.addons.worker.wiring import make_worker


def run(control: socket.socket, budget: int, index: int) -> None:
    """Serve as worker `index` until the supervisor or SIGTERM says to leave.

    Args:
        control: The socket to the supervisor.
        budget: The descriptor of the shared counters.
        index: The number of the worker.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(
        stream=sys.stderr, format=f"worker {index}: %(message)s", level=logging.WARNING
    )
    uvloop.run(_main(control, budget, index))


async def _main(control: socket.socket, budget: int, index: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_task)
    worker = make_worker(control, budget, index)
    loop.add_signal_handler(signal.SIGTERM, worker.stop.set)
    # A terminal sends ^C to the whole process group, but the supervisor decides when workers leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With the default thresholds, collections look at long-lived flows again and again; with
    # higher ones a single collection takes too long.
    gc.set_threshold(2000, 10, 20)
    periodic = asyncio.ensure_future(worker.run_periodic_work())
    await worker.stop.wait()
    await worker.drain()
    periodic.cancel()


def eager_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    """Make a task that runs at once, up to its first wait: a task factory for event loops."""
    # uvloop passes eager_start itself, which asyncio.eager_task_factory of 3.13.0-2 refuses.
    kwargs["eager_start"] = True
    return asyncio.Task(coro, loop=loop, **kwargs)
