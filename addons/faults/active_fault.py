"""An active fault: it holds one place in `limits.active_faults` until it is released.

It is counted once: as performed when it begins to have its effect, or else as failed.
"""

import asyncio
from collections.abc import Callable

from counterfault.addons.state import HeldFault, WorkerState
from counterfault.proxy.engines.plan import Injection
from counterfault.proxy.measurement.keys import FaultResult

type Count = Callable[[Injection, FaultResult], None]


class ActiveFault:
    """A fault that the budget has allowed. The code that makes one has to release it."""

    def __init__(
        self, state: WorkerState, injection: Injection, count: Count, held: set[HeldFault]
    ) -> None:
        """Add the fault to those of the worker and of its exchange.

        Args:
            state: The state of the worker, whose budget has a place for this fault.
            injection: What was drawn.
            count: Counts the injection under a result.
            held: The faults of the exchange.
        """
        self.injection, self.over = injection, False
        self._waits: set[asyncio.Future[bool]] = set()
        self._state, self._count, self._held = state, count, held
        self._counted = False
        state.held_faults.add(self)
        held.add(self)

    def performed(self) -> None:
        """Count the fault as performed, the first time: it has begun to have its effect."""
        if not self._counted:
            self._counted = True
            self._count(self.injection, FaultResult.PERFORMED)

    def release(self) -> None:
        """End the fault and all waits for it; one that had no effect is counted as failed."""
        if self.over:
            return
        self.over = True
        for wait in self._waits:
            _resolve(wait, False)
        self._state.held_faults.discard(self)
        self._held.discard(self)
        self._state.budget.release()
        if not self._counted:
            self._counted = True
            self._count(self.injection, FaultResult.FAILED)
            slot = self._state.budget_slots.get(self.injection.experiment)
            if slot is not None:
                self._state.budget.refund(slot)

    async def wait(self, seconds: float) -> bool:
        """Wait. Returns True if all the seconds have passed, False if the fault was over before."""
        if self.over:
            return False
        loop = asyncio.get_running_loop()
        wait: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, wait, True)
        self._waits.add(wait)
        try:
            return await wait
        finally:
            timer.cancel()
            self._waits.discard(wait)


def _resolve(wait: asyncio.Future[bool], result: bool) -> None:
    if not wait.done():
        wait.set_result(result)
