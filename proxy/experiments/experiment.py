"""The model of an experiment's file: hypothesis, cohorts, faults, steady state and limits."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from counterfault.proxy.experiments.cohorts import Arcs, salt_of
from counterfault.proxy.experiments.fault_rule import AnyFaultRule
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.values.matching import Strict
from counterfault.proxy.values.schedule import Hours
from counterfault.proxy.values.units import Duration, Moment, Name, Positive, Share, percent


def _half(value: float) -> float:
    if value > 0.5:
        raise ValueError(f"must be at most 50%, not {percent(value)}")
    return value


CohortShare = Annotated[Share, AfterValidator(_half)]


class Cohorts(Strict):
    """The share of users in each cohort, as fractions of all users."""

    experiment: CohortShare = Field(description="Share of users that get the faults, up to 50%")
    control: CohortShare = Field(description="Share of users they are compared with, up to 50%")

    @field_validator("experiment", "control")
    @classmethod
    def _not_empty(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("must be above 0%")
        return value


class GuardLimits(Strict):
    """When to stop, beyond the hypothesis."""

    confidence: Share = Field(
        default=0.95,
        description="1 - the chance of a false alarm, and of a false hold",
    )
    max_faults: int | None = Field(
        default=None, ge=1, description="The run is stopped after this many; unset: no bound"
    )
    hours: Hours | None = Field(
        default=None,
        description="When it may run, such as Mon-Fri 09:00-17:00 Europe/London; unset: always",
    )
    stop_when_held: bool = Field(
        default=False, description="End the faults as soon as the hypothesis holds"
    )

    @field_validator("confidence")
    @classmethod
    def _bounds(cls, value: float) -> float:
        if not 0.5 <= value < 1:
            raise ValueError(f"must be at least 50% and below 100%, not {percent(value)}")
        return value


class Experiment(Strict):
    """One YAML file under experiments/."""

    experiment: Name = Field(description="Its name, a label on every series")
    hypothesis: str = Field(default="", max_length=500, description="What should stay as it is")
    state: Literal["running", "paused"] = Field(description="running: a reload starts it")
    run: int = Field(default=1, ge=1, le=1_000_000, description="Raise it to run again")
    not_after: Moment | None = Field(default=None, description="Past it, no run starts or goes on")
    duration: Positive = Field(description="How long the faults are on", le=30 * 86400.0)
    baseline: Duration = Field(default=60.0, le=86400.0, description="Measured before the faults")
    recovery: Duration = Field(default=60.0, le=86400.0, description="Measured after the faults")
    cohorts: Cohorts
    faults: tuple[AnyFaultRule, ...] = Field(min_length=1, max_length=20, strict=False)
    steady_state: tuple[Metric, ...] = Field(
        default=(), max_length=20, strict=False, description="Together they are the hypothesis"
    )
    guard: GuardLimits = GuardLimits()

    @field_validator("steady_state")
    @classmethod
    def _unique(cls, value: tuple[Metric, ...], info: ValidationInfo) -> tuple[Metric, ...]:
        names = [metric.name for metric in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"metric names must differ; twice: {', '.join(twice)}")
        return value

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.experiment

    @property
    def salt(self) -> bytes:
        """The salt of its present run."""
        return salt_of(self.experiment, self.run)

    @property
    def arcs(self) -> Arcs:
        """The arcs of its present run."""
        return Arcs(self.name, self.salt, self.cohorts.experiment, self.cohorts.control)
