"""A run under way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from counterfault.proxy.experiments.lifecycle import State


@dataclass(frozen=True, slots=True)
class Status:
    """A run under way."""

    state: State
    epoch: str

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Status":
        return cls(State(run["state"]), run["epoch"])
