"""A data plane, seen from the supervisor."""

from typing import Any, Protocol

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.fault_budget import Budget


class Engine(Protocol):
    """What `workers` and `envoy` both are."""

    budget: Budget

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners. Raises OSError and leaves the old ones."""

    async def prepare(self, config: Config) -> None:
        """Have at hand what plans of this configuration will need; takes no longer than it may."""

    def push(self, config: Config, runs: dict[str, Any], lease_until: float) -> int:
        """Send a plan; answers its generation."""

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then."""

    async def applied(self, generation: int) -> None:
        """Wait until every living worker acts on that plan or a newer one."""

    async def serving(self) -> None:
        """Wait until every worker serves."""

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""

    @property
    def serves(self) -> bool:
        """Whether traffic passes at all, on this plan or one before."""

    @property
    def pids(self) -> list[int]:
        """The worker processes."""

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all workers."""
