"""What a worker acts on at this moment: the plan, the lease, and the faults it holds."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Injection, Plan
from counterfault.proxy.measurement.counters import DOSE, STEADY, USERS, Counters, internal

log = logging.getLogger("counterfault")


class HeldFault(Protocol):
    """What a fault holds; it ends by itself, with the fault, or when the client leaves."""

    injection: Injection

    def release(self) -> None:
        """Let go now."""


@dataclass(slots=True)
class WorkerState:
    """Shared by all connections of a worker. Times are seconds of `clock`."""

    plan: Plan
    budget: Budget
    slots: dict[str, int] = field(default_factory=dict)
    workers: int = 1
    tally: Counters = field(default_factory=Counters)
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    lease_until: float = 0.0
    draining: bool = False
    holds: set[HeldFault] = field(default_factory=set)

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

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an error of ours; traffic goes on."""
        self.tally.add(internal(where))
        log.error("%s: %s: %s", where, type(error).__name__, error)


def _of_ended_epoch(key: tuple[str | int, ...], plan: Plan) -> bool:
    """Counts of an epoch that no experiment of this plan is in; the supervisor has them."""
    if key[0] == USERS:
        return plan.edits.get(str(key[1])) != key[2]
    return key[0] in (STEADY, DOSE) and (key[1], key[2]) not in plan.epochs
