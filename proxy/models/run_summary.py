"""What is known of a run at one moment: its verdict and the numbers behind it."""

from dataclasses import dataclass, field

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.experiments.steady_state import MetricKind
from counterfault.proxy.models.json_model import EffectUnit, JsonModel

type Cells = dict[str, list[int]]
"""By cell (0 good, 1 bad, or a latency bucket): events per replicate"""


@dataclass(frozen=True, kw_only=True)
class VerdictSummary(JsonModel):
    """What the run says of its hypothesis"""

    result: Result
    reason: str
    """In words"""
    provisional: bool
    """The run goes on and may end otherwise"""


@dataclass(frozen=True, kw_only=True)
class DoseSummary(JsonModel):
    """Faults of the running phase"""

    planned: int
    performed: int
    share: float
    """Performed of planned, 0 to 1"""


@dataclass(frozen=True, kw_only=True)
class UsersSummary(JsonModel):
    """Distinct users of each cohort; estimates past 16384"""

    control: int
    experiment: int
    expected_share: float | None
    """The experiment's share of the enrolled users, as configured"""
    evidence: float
    """Evidence that the true share is another one: natural logarithm of an e-value"""
    unseen: float | None = None
    """Harm to a smaller share of users than this, 0 to 1, may have hit none of those met"""
    off: bool
    """Whether the evidence is enough for a sample ratio mismatch"""


@dataclass(frozen=True, kw_only=True)
class CohortLevel(JsonModel):
    """One cohort's events and level: share of bad events, seconds, or events per 1 % of users"""

    events: int
    bad: int
    level: float | None


@dataclass(frozen=True, kw_only=True)
class MetricEvidence(JsonModel):
    """Natural logarithms of e-values, and where each decides; null: without bound"""

    harm: float | None
    within: float | None
    harm_at: float
    within_at: float


@dataclass(frozen=True, kw_only=True)
class MetricSummary(JsonModel):
    """A steady-state metric of both cohorts

    Effects are fractions in the metric's unit, positive where users are worse off; null: unknown
    or without bound.
    """

    name: str
    at: str
    """The listener at which it is measured"""
    kind: MetricKind
    plain: bool = False
    """Prometheus gives one number per cohort: a threshold applies, and nothing is tested"""
    no_data: str | None = None
    """Since when and why a metric in Prometheus has no data"""
    tolerance: str
    """In words"""
    unit: EffectUnit
    """pp: effects are shares of all exchanges; %: of control's level"""
    allowed: float
    """The tolerance, a fraction"""
    cell_growth: float | None = None
    """Each latency cell is so many times as wide as the one before; null: 2^(1/8), or no latency"""
    effect: float | None
    lower: float | None
    """Anytime-valid bound, by itself: not together with `upper`, or with other metrics"""
    upper: float | None
    """Anytime-valid bound, by itself"""
    harmed: bool
    """The effect is beyond the tolerance"""
    within: bool
    """The effect is within the tolerance"""
    evidence: MetricEvidence
    detectable: float | None
    """The effect that four of five such runs would have found"""
    needed: int | None
    """Events that the smaller cohort needs"""
    users_needed: int | None = None
    """Users that the smaller cohort needs, since few users may have all the harm"""
    clusters: float
    """Effective replicates of 64"""
    control: CohortLevel
    experiment: CohortLevel
    says: str
    """The finding in words"""
    levels: list[str]
    """The levels of control and of experiment with their units"""


@dataclass(frozen=True, kw_only=True)
class CohortCells(JsonModel):
    """The samples of both cohorts; cells without events are left out"""

    control: Cells
    experiment: Cells


type MetricSamples = dict[str, dict[str, CohortCells]]
"""By metric and phase"""


@dataclass(frozen=True, kw_only=True)
class RunSummary(JsonModel):
    """The verdict on a run with the numbers behind it"""

    verdict: VerdictSummary
    dose: DoseSummary
    users: UsersSummary
    metrics: list[MetricSummary]
    versions: dict[str, str]
    """Versions of the software that ran it"""


@dataclass(frozen=True, kw_only=True)
class RecordedSummary(RunSummary):
    """A run's summary as the history keeps it, with the samples"""

    samples: MetricSamples = field(default_factory=dict)
