"""The state of a worker: the plan and lease that it acts on, its counters, its held faults."""

import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Injection, Plan
from counterfault.proxy.experiments.cohorts import Enrolment
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.exchanges import Measured, begin_exchange
from counterfault.proxy.measurement.keys import InternalErrorKey, OpenKey

log = logging.getLogger("counterfault")


class HeldFault(Protocol):
    """A fault that may hold a request back. It ends by itself, with its run or with the client."""

    injection: Injection

    def release(self) -> None:
        """End the fault now."""


@dataclass(slots=True)
class WorkerState:
    """What all connections of a worker act on. Only the worker's event loop uses it."""

    plan: Plan
    budget: Budget
    budget_slots: dict[str, int] = field(default_factory=dict)
    """The slot of each run in the budget."""
    workers: int = 1
    counters: Counters = field(default_factory=Counters)
    clock: Callable[[], float] = time.monotonic
    """Returns monotonic seconds, which all processes of the machine share."""
    random: Callable[[], float] = random.random
    lease_until: float = 0.0
    """Seconds of the clock until which faults may happen."""
    draining: bool = False
    held_faults: set[HeldFault] = field(default_factory=set)

    def leased(self) -> bool:
        """Whether faults may happen now."""
        return self.clock() < self.lease_until

    def allows(self, injection: Injection) -> bool:
        """Whether a fault that was drawn earlier may still happen: its run goes on."""
        return self.leased() and self.plan.injects(injection.experiment, injection.epoch)

    def apply_plan(self, plan: Plan, budget_slots: dict[str, int]) -> None:
        """Act on a new plan, and release the faults of runs that it has ended."""
        self.plan, self.budget_slots = plan, budget_slots
        self.release_ended_faults()
        self.counters.forget_others(plan.kept_epochs)

    def release_ended_faults(self) -> None:
        """Release the held faults that the plan and the lease no longer allow."""
        for fault in [f for f in self.held_faults if not self.allows(f.injection)]:
            fault.release()

    def begin(
        self, listener: str, enrolment: Enrolment, measured: Iterable[Measured], at: float
    ) -> OpenKey | None:
        """Count an exchange that begins with an enrolment of the present plan.

        Returns the key with which it has to end; None if nothing of its experiment is placed at
        this listener. `at` is now, in seconds of the clock.
        """
        name = enrolment.experiment
        epoch = self.plan.epoch_at(listener, name)
        if epoch is None:
            return None
        cohort, replicate = enrolment.cohort, enrolment.replicate
        return begin_exchange(self.counters, name, epoch, cohort, replicate, measured, at)

    def count_user(self, enrolment: Enrolment) -> None:
        """Count the user of an enrolment that the present plan has made."""
        if enrolment.user is not None:
            revision = self.plan.revision_of(enrolment)
            self.counters.count_user(
                enrolment.experiment, revision, enrolment.cohort, enrolment.user
            )

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an internal error; traffic goes on.

        `where` is the part that failed, a label of `counterfault_internal_errors_total`.
        """
        self.counters.add(InternalErrorKey(where))
        log.error("%s: %s: %s", where, type(error).__name__, error)
