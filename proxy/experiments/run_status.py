"""What a data plane needs to know of a run: sent by the supervisor with each plan."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from counterfault.proxy.experiments.lifecycle import Epoch, State


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The status of a run under way. `slot` is its place in the shared fault budget."""

    epoch: Epoch
    slot: int = 0

    @property
    def state(self) -> State:
        """The state of the run, which is part of its epoch."""
        return self.epoch.state

    def to_wire(self) -> dict[str, Any]:
        """The status for a JSON message."""
        return asdict(self)

    @classmethod
    def from_wire(cls, run: Mapping[str, Any]) -> "RunStatus":
        """The status that was sent as this JSON object."""
        return cls(Epoch(run["epoch"]), run["slot"])
