"""Keeps a child process running, and tells the tasks that wait for its state to change."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger("counterfault")

# A child that ends within this many seconds of its start is in a crash loop.
CRASH_LOOP = 2.0
# Seconds before the next start after a crash loop or a failed start.
RESTART_PAUSE = 1.0
# Seconds past the drain time before a child that does not leave is killed.
STOP_GRACE = 5.0


class ChangeSignal:
    """Wakes every task that waits for a change; each of them then looks at the state again."""

    def __init__(self) -> None:
        """Make a signal that no task waits for yet."""
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next call of `notify`."""
        await self._event.wait()

    def notify(self) -> None:
        """Wake all tasks that wait at this moment."""
        self._event.set()
        self._event = asyncio.Event()


async def keep_running(
    name: str,
    start: Callable[[], Awaitable[None]],
    ended: Callable[[], Awaitable[str]],
    stopping: Callable[[], bool],
) -> None:
    """Start a child process, and start it again whenever it ends, until `stopping()`.

    Args:
        name: What the log calls the child.
        start: Starts the child unless it runs already. An OSError is logged and start is called
            again after RESTART_PAUSE.
        ended: Waits until the child has ended and clears up after it. Returns what the log should
            add to the news, or an empty string.
        stopping: Whether the engine is about to stop, so that no child is needed any more.
    """
    while not stopping():
        try:
            await start()
        except OSError as e:  # for example no process or no descriptor is left
            log.error("%s cannot start: %s", name, e)
            await asyncio.sleep(RESTART_PAUSE)
            continue
        if stopping():
            return
        started = time.monotonic()
        details = await ended()
        if not stopping():
            log.error("%s has ended; starting another%s", name, details and f". {details}")
            if time.monotonic() - started < CRASH_LOOP:
                await asyncio.sleep(RESTART_PAUSE)
