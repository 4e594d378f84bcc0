"""What a worker acts on at this moment: the plan, the lease, and the faults it holds."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.engines.budget import Budget
from proxy.plan import Injection, Plan
from proxy.tally import DOSE, STEADY, USERS, internal
from proxy.totals import Tally

log = logging.getLogger("counterfault")


@dataclass(eq=False, slots=True)
class Hold:
    """A pause in an exchange: it ends by itself, with the fault, or when the client leaves."""

    injection: Injection
    ended: asyncio.Future[bool]

    def release(self) -> None:
        """Let the exchange go on now."""
        if not self.ended.done():
            self.ended.set_result(False)


@dataclass(slots=True)
class Live:
    """Shared by all connections of a worker. Times are seconds of `clock`."""

    plan: Plan
    budget: Budget
    slots: dict[str, int] = field(default_factory=dict)
    workers: int = 1
    tally: Tally = field(default_factory=Tally)
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    lease_until: float = 0.0
    draining: bool = False
    holds: set[Hold] = field(default_factory=set)

    def leased(self) -> bool:
        return self.clock() < self.lease_until

    def allows(self, injection: Injection) -> bool:
        """Whether a fault drawn earlier may still happen."""
        return self.leased() and self.plan.injects(injection.experiment, injection.epoch)

    def swap(self, plan: Plan, slots: dict[str, int]) -> None:
        """Act on a new plan; what ended runs still hold is released."""
        self.plan, self.slots = plan, slots
        self.release_ended()
        self.tally.forget(lambda key: _of_ended_epoch(key, plan))

    def release_ended(self) -> None:
        for hold in [hold for hold in self.holds if not self.allows(hold.injection)]:
            hold.release()

    async def hold(self, injection: Injection, seconds: float, held: set[Hold]) -> bool:
        """Wait; True if the whole time passed, False if the wait was cut short."""
        loop = asyncio.get_running_loop()
        hold = Hold(injection, loop.create_future())
        timer = loop.call_later(seconds, _full_time, hold.ended)
        self.holds.add(hold)
        held.add(hold)
        try:
            return await hold.ended
        finally:
            timer.cancel()
            self.holds.discard(hold)
            held.discard(hold)

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an error of ours; traffic goes on."""
        self.tally.add(internal(where))
        log.error("%s: %s: %s", where, type(error).__name__, error)


def _full_time(ended: asyncio.Future[bool]) -> None:
    if not ended.done():
        ended.set_result(True)


def _of_ended_epoch(key: tuple[str | int, ...], plan: Plan) -> bool:
    """Counts of an epoch that no experiment of this plan is in; the supervisor has them."""
    if key[0] == USERS:
        return plan.edits.get(str(key[1])) != key[2]
    return key[0] in (STEADY, DOSE) and (key[1], key[2]) not in plan.epochs
