"""What a run says of its hypothesis: held, refuted, inconclusive or invalid, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from proxy.analysis.compare import LEAST_CLUSTERS, LEAST_EVENTS, Comparison
from proxy.analysis.ratio import SampleRatio
from proxy.guard import State, Stop
from proxy.units import percent

# A run in which fewer of the planned faults happened has not tried what it was to try.
LEAST_DOSE = 0.8


class Result(StrEnum):
    """What became of a hypothesis."""

    HELD = "held"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Dose:
    """Faults of the running phase: drawn, and performed."""

    planned: int = 0
    performed: int = 0

    @property
    def share(self) -> float:
        return self.performed / self.planned if self.planned else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`provisional`: the run goes on and may end otherwise."""

    result: Result
    reason: str
    provisional: bool = False
