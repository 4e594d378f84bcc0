"""The supervisor's plans on their way to Envoy: one at a time, and always the latest."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.runtime.delivery import Rejected
from counterfault.proxy.experiments.run_status import RunStatus

log = logging.getLogger("counterfault")

_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the supervisor wants at this moment."""

    generation: int
    config: Config
    runs: Mapping[str, RunStatus]
    behind: int
    """The generation of the workers' plan; 0 where there are none."""


class PlanQueue:
    """`bring` has Envoy act on a plan, or raises Rejected or, to be asked again, OSError.

    `refused` hears why a plan was rejected; the one before stays.
    """

    def __init__(
        self, bring: Callable[[Wanted], Awaitable[None]], refused: Callable[[str], None]
    ) -> None:
        self._bring, self._refused = bring, refused
        self._generation = 0
        self._accepted = 0
        self._refusals: dict[int, str] = {}
        self._wake, self._news = asyncio.Event(), asyncio.Event()
        self._over = False
        self.latest: Wanted | None = None

    def push(self, config: Config, runs: Mapping[str, RunStatus], behind: int) -> int:
        """Begin to bring a plan; answers its generation."""
        self._generation += 1
        self.latest = Wanted(self._generation, config, runs, behind)
        self.again()
        return self._generation

    def again(self) -> None:
        """Bring the latest one once more: what it depends on has changed."""
        self._wake.set()

    def end(self) -> None:
        """Bring no more of them."""
        self._over = True

    @property
    def told(self) -> bool:
        """Whether Envoy acts on the latest plan or, having refused it, on the one before."""
        return self._accepted >= self._generation or self._generation in self._refusals

    @property
    def any_told(self) -> bool:
        """Whether Envoy has said anything to any plan."""
        return bool(self._accepted or self._refusals)

    async def accepted(self, generation: int) -> None:
        """Wait until Envoy acts on a plan at least as new. Raises OSError if it refuses it."""
        while self._accepted < generation:
            if reason := self._refusals.get(generation):
                raise OSError(reason)
            await self.news()

    async def news(self) -> None:
        """Wait until something may have changed."""
        await self._news.wait()

    def tell_news(self) -> None:
        """Let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def deliver(self) -> None:
        """Bring plans for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._over or (wanted := self.latest) is None:
                continue
            try:
                await self._bring(wanted)
            except Rejected as e:
                log.error("envoy refuses the configuration: %s", e)
                self._refusals = {wanted.generation: str(e)}
                self._refused(str(e))
            except OSError as e:
                log.debug("envoy: %s", e)
                await asyncio.sleep(_POLL)
                self.again()
            else:
                self._accepted = max(self._accepted, wanted.generation)
            self.tell_news()
