"""The interface of a data plane, as the supervisor uses it."""

from collections.abc import Mapping
from typing import Protocol

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.experiments.run_status import RunStatus


class Engine(Protocol):
    """A data plane: the worker pool of mitmproxy, or Envoy with workers behind it."""

    budget: Budget

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners. Raises OSError and leaves the old ones."""

    async def prepare(self, config: Config) -> None:
        """Start what plans of this configuration will need, within a bounded time."""

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        """Send a plan. Returns its generation, for `wait_applied`.

        `lease_until` in seconds of the monotonic clock.
        """

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock."""

    async def wait_applied(self, generation: int) -> None:
        """Wait until every running worker acts on that plan or a newer one."""

    async def wait_serving(self) -> None:
        """Wait until every worker serves."""

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""

    @property
    def serves(self) -> bool:
        """Whether traffic passes at all, on this plan or an earlier one."""

    @property
    def pids(self) -> list[int]:
        """The worker processes."""

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all workers."""
