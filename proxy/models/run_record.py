"""A run from its beginning on: what was planned, what happened, and its summary."""

from dataclasses import dataclass, field

from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.run_summary import (
    CohortLevel,
    DoseSummary,
    MetricSamples,
    MetricSummary,
    UsersSummary,
    VerdictSummary,
)
from counterfault.proxy.models.run_traffic import FaultCounts, ListenerTraffic


@dataclass(frozen=True, kw_only=True)
class PhaseLengths(JsonModel):
    """Planned lengths in seconds"""

    baseline: float
    duration: float
    recovery: float


@dataclass(frozen=True, kw_only=True)
class CohortShares(JsonModel):
    """Shares of users, 0 to 1"""

    experiment: float
    control: float


@dataclass(frozen=True, kw_only=True)
class TimelineEvent(JsonModel):
    """A change of state"""

    at: float
    """Unix seconds"""
    state: State
    reason: str
    """Why the run was stopped; else empty"""


@dataclass(frozen=True, kw_only=True)
class MetricPoint(JsonModel):
    """The estimate so far, and what both cohorts counted since the point before"""

    effect: float | None
    lower: float | None
    upper: float | None
    control: CohortLevel
    experiment: CohortLevel


@dataclass(frozen=True, kw_only=True)
class Snapshot(JsonModel):
    """A run at one moment, as the history keeps it beside the time"""

    state: State
    epoch: str
    metrics: dict[str, MetricPoint]
    """By metric"""


@dataclass(frozen=True, kw_only=True)
class Point(JsonModel):
    """A run at one moment"""

    at: float
    """Unix seconds"""
    state: State
    epoch: str
    """Number of the run, number of its edits, and phase"""
    metrics: dict[str, MetricPoint]
    """By metric"""


@dataclass(frozen=True, kw_only=True)
class RunRecord(JsonModel):
    """A run, present or past, as reports tell it"""

    name: str
    """The experiment"""
    run: int
    state: State
    reason: str
    """Why the run was stopped; else empty"""
    hypothesis: str
    phases: PhaseLengths | None
    """Null: written by another version"""
    cohorts: CohortShares | None
    """Null: written by another version"""
    confidence: float | None
    """1 minus the probability of a false alarm; null: written by another version"""
    faults: list[str]
    """In words"""
    verdict: VerdictSummary
    dose: DoseSummary
    users: UsersSummary
    metrics: list[MetricSummary]
    versions: dict[str, str]
    """Versions of the software that ran it"""
    timeline: list[TimelineEvent]
    points: list[Point]
    samples: MetricSamples
    configuration: dict[str, object]
    """The experiment's file as it was read"""
    fault_counts: list[FaultCounts] = field(default_factory=list)
    """What came of the faults, by rule; empty: written by another version"""
    listeners: dict[str, ListenerTraffic] = field(default_factory=dict)
    """The listeners at which the experiment has faults or metrics; empty: by another version"""
