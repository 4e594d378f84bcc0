"""What a run has counted besides its metrics: faults, and requests at the listeners it touches."""

from dataclasses import dataclass, field
from typing import Literal

from counterfault.proxy.models.json_model import JsonModel


@dataclass(frozen=True, kw_only=True)
class FaultCounts(JsonModel):
    """A fault of an experiment, and how often it was applied in the present run"""

    at: str
    """The listener"""
    fault: str
    dose: float | str
    """A share, or a limit in words"""
    when: Literal["before", "after"]
    planned: int
    performed: int
    overflow: int
    """A limit was reached and the request passed"""
    failed: int


@dataclass(frozen=True, kw_only=True)
class CohortTraffic(JsonModel):
    """Requests of one cohort that have ended"""

    requests: int
    errors: int
    """5xx and failed exchanges"""
    p50: float | None
    """Seconds"""
    p99: float | None
    """Seconds"""


@dataclass(frozen=True, kw_only=True)
class PhaseTraffic(JsonModel):
    """Requests of both cohorts that came in one phase of the run and have ended"""

    control: CohortTraffic
    experiment: CohortTraffic


@dataclass(frozen=True, kw_only=True)
class ListenerTraffic(JsonModel):
    """The run's requests at one listener, all phases together and each by itself

    A request belongs to the phase in which it came, and is counted when it has ended. An edit that
    discards what the metrics have counted discards these counts, too.
    """

    control: CohortTraffic
    experiment: CohortTraffic
    phases: dict[str, PhaseTraffic] = field(default_factory=dict)
    """By phase; phases without requests are left out"""
