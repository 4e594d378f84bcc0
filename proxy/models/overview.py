"""What the API says of the sidecar and of its experiments."""

from dataclasses import dataclass

from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.steady_state import MetricKind
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.run_record import (
    CohortShares,
    PhaseLengths,
    Point,
    TimelineEvent,
)
from counterfault.proxy.models.run_summary import (
    DoseSummary,
    MetricSamples,
    MetricSummary,
    UsersSummary,
    VerdictSummary,
)
from counterfault.proxy.models.run_traffic import FaultCounts, ListenerTraffic


@dataclass(frozen=True, kw_only=True)
class SampleCounts(JsonModel):
    """What one cohort counted in one phase"""

    events: int
    bad: int
    quantile: float | None
    """Seconds; of latency metrics only"""


@dataclass(frozen=True, kw_only=True)
class CohortCounts(JsonModel):
    """What both cohorts counted in one phase"""

    control: SampleCounts
    experiment: SampleCounts


@dataclass(frozen=True, kw_only=True)
class PhaseCounts(JsonModel):
    """What both cohorts counted in each phase"""

    baseline: CohortCounts
    running: CohortCounts
    recovering: CohortCounts


@dataclass(frozen=True, kw_only=True)
class SteadyStateMetric(JsonModel):
    """A metric of the steady state, and what was counted for it"""

    name: str
    at: str
    """The listener at which it is measured"""
    kind: MetricKind
    tolerance: str
    """In words"""
    phases: PhaseCounts


@dataclass(frozen=True, kw_only=True)
class MetricForecast(JsonModel):
    """How far a metric is from a verdict, in events of the smaller cohort"""

    metric: str
    needed: int
    have: int
    per_second: float
    seconds: float | None
    """At the present rate; null: never"""


@dataclass(frozen=True, kw_only=True)
class ExperimentSummary(JsonModel):
    """An experiment and its present run"""

    name: str
    hypothesis: str
    run: int
    state: State
    reason: str
    """Why the run was stopped; else empty"""
    remaining: float | None
    """Seconds until the state ends by itself"""
    phases: PhaseLengths
    cohorts: CohortShares
    faults: list[FaultCounts]
    listeners: dict[str, ListenerTraffic]
    """The listeners at which it has faults or metrics"""
    steady_state: list[SteadyStateMetric]
    verdict: VerdictSummary
    dose: DoseSummary
    users: UsersSummary
    metrics: list[MetricSummary]
    forecast: list[MetricForecast]


@dataclass(frozen=True, kw_only=True)
class ExperimentDetail(ExperimentSummary):
    """An experiment with all that is known of its present run"""

    timeline: list[TimelineEvent]
    points: list[Point]
    samples: MetricSamples
    versions: dict[str, str]
    """Versions of the software that ran it"""
    configuration: dict[str, object]
    """The experiment's file as it was read"""


@dataclass(frozen=True, kw_only=True)
class WorkerCounts(JsonModel):
    """Worker processes: how many act on the plan, how many are configured, and their ids"""

    ready: int
    wanted: int
    pids: list[int]


@dataclass(frozen=True, kw_only=True)
class Limits(JsonModel):
    """The configured limits"""

    enrolled: float
    """Share of users, 0 to 1"""
    active_faults: int


@dataclass(frozen=True, kw_only=True)
class Overview(JsonModel):
    """The sidecar and its experiments"""

    service: str
    version: str
    uptime: float
    """Seconds"""
    killed: bool
    """The kill switch is on"""
    state_dir_error: str
    """Why no run starts; empty: nothing is wrong"""
    reload_error: list[str]
    """What was wrong at the last reload; empty: it succeeded"""
    lease_remaining: float
    """Seconds that faults would go on without the supervisor"""
    faults_active: int
    workers: WorkerCounts
    limits: Limits
    enrolled: float
    """Share of users in the cohorts of live runs, 0 to 1"""
    experiments: list[ExperimentSummary]
