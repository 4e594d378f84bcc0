"""The supervisor's plans on their way to Envoy: one at a time, and always the latest."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.runtime.delivery import ConfigRejected
from counterfault.proxy.engines.keeper import ChangeSignal
from counterfault.proxy.experiments.run_status import RunStatus

log = logging.getLogger("counterfault")

# Seconds before an attempt that failed with OSError is repeated.
_RETRY_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class QueuedPlan:
    """A plan that the supervisor has pushed.

    Attributes:
        generation: The number of the plan, from 1.
        config: The configuration.
        runs: The status of each run, by the name of its experiment.
        workers_generation: The generation of the workers' plan; 0 if there are no workers.
    """

    generation: int
    config: Config
    runs: Mapping[str, RunStatus]
    workers_generation: int


class PlanQueue:
    """Applies the latest plan again and again until Envoy has accepted or rejected it."""

    def __init__(
        self, apply: Callable[[QueuedPlan], Awaitable[None]], rejected: Callable[[str], None]
    ) -> None:
        """Prepare the queue; the task `deliver` works on it.

        Args:
            apply: Makes Envoy act on a plan. Raises ConfigRejected if Envoy keeps the plan before,
                or OSError to be called again.
            rejected: Called with Envoy's reason when a plan was rejected.
        """
        self._apply, self._on_rejected = apply, rejected
        self._generation = 0
        self._accepted = 0
        self._rejections: dict[int, str] = {}
        self._wake = asyncio.Event()
        self._closed = False
        self.changed = ChangeSignal()
        """Notified when a plan was accepted or rejected, or an attempt has failed."""
        self.latest: QueuedPlan | None = None

    def push(self, config: Config, runs: Mapping[str, RunStatus], workers_generation: int) -> int:
        """Queue a plan in place of the one before. Returns its generation."""
        self._generation += 1
        self.latest = QueuedPlan(self._generation, config, runs, workers_generation)
        self.redeliver()
        return self._generation

    def redeliver(self) -> None:
        """Apply the latest plan once more, because something it depends on has changed."""
        self._wake.set()

    def close(self) -> None:
        """Apply no more plans."""
        self._closed = True

    @property
    def settled(self) -> bool:
        """Whether Envoy has accepted or rejected the latest plan."""
        return self._accepted >= self._generation or self._generation in self._rejections

    @property
    def any_settled(self) -> bool:
        """Whether Envoy has accepted any plan, or rejected the last one that it was given."""
        return bool(self._accepted or self._rejections)

    async def accepted(self, generation: int) -> None:
        """Wait until Envoy acts on a plan at least as new. Raises OSError if it is rejected."""
        while self._accepted < generation:
            if reason := self._rejections.get(generation):
                raise OSError(reason)
            await self.changed.wait()

    async def deliver(self) -> None:
        """Apply plans until the task is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._closed or (plan := self.latest) is None:
                continue
            try:
                await self._apply(plan)
            except ConfigRejected as e:
                log.error("envoy refuses the configuration: %s", e)
                self._rejections = {plan.generation: str(e)}
                self._on_rejected(str(e))
            except OSError as e:
                log.debug("envoy: %s", e)
                await asyncio.sleep(_RETRY_PAUSE)
                self.redeliver()
            else:
                self._accepted = max(self._accepted, plan.generation)
            self.changed.notify()
