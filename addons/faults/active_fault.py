"""A fault under way: it counts once, and has its place among the active ones until it ends."""

import asyncio
from collections.abc import Callable

from counterfault.addons.state import HeldFault, WorkerState
from counterfault.proxy.engines.plan import Injection

type Count = Callable[[Injection, str], None]


class ActiveFault:
    """Made once the budget allows a fault; whoever makes one sees to it that it is released."""

    def __init__(
        self, live: WorkerState, injection: Injection, count: Count, held: set[HeldFault]
    ) -> None:
        self.injection, self.over = injection, False
        self._waiting: set[asyncio.Future[bool]] = set()
        self._live, self._count, self._held = live, count, held
        self._counted = False
        live.holds.add(self)
        held.add(self)

    def performed(self) -> None:
        """The fault has begun to have its effect."""
        if not self._counted:
            self._counted = True
            self._count(self.injection, "performed")

    def release(self) -> None:
        """The fault is over; if it had no effect, then it has failed."""
        if self.over:
            return
        self.over = True
        for waiting in self._waiting:
            _settle(waiting, False)
        self._live.holds.discard(self)
        self._held.discard(self)
        self._live.budget.release()
        if not self._counted:
            self._counted = True
            self._count(self.injection, "failed")
            slot = self._live.slots.get(self.injection.experiment)
            if slot is not None:
                self._live.budget.refund(slot)

    async def wait(self, seconds: float) -> bool:
        """True if the whole time passed, False if the fault was over before."""
        if self.over:
            return False
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _settle, waiting, True)
        self._waiting.add(waiting)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)


def _settle(waiting: asyncio.Future[bool], result: bool) -> None:
    if not waiting.done():
        waiting.set_result(result)
