"""An experiment as a user writes it: hypothesis, cohorts, faults, steady state and limits."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from proxy.cohorts import salt_of
from proxy.dose import ALL, Dose
from proxy.faults import KNOWN, Fault
from proxy.hours import Hours
from proxy.match import Match, Outcome, Strict
from proxy.tally import LATENCY_GROWTH
from proxy.units import Duration, Positive, Share, Tolerance, ToleranceText, percent, shown

NAME = r"[a-z0-9-]{1,40}"
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise ValueError(f"must be 1 to 40 of a-z, 0-9 and -, not {shown(value)}")
    return value


def _half(value: float) -> float:
    if value > 0.5:
        raise ValueError(f"must be at most 50%, not {percent(value)}")
    return value


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"must be a moment with its time zone such as 2026-12-01T18:00:00Z, not {shown(value)}"
        )
    return moment


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME}$"})]
CohortShare = Annotated[Share, AfterValidator(_half)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class Cohorts(Strict):
    """How many users are in each cohort."""

    experiment: CohortShare = Field(description="Share of users that get the faults, up to 50%")
    control: CohortShare = Field(description="Share of users they are compared with, up to 50%")

    @field_validator("experiment", "control")
    @classmethod
    def _not_empty(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("must be above 0%")
        return value


class FaultRule(Strict):
    """Where, when and how often a fault happens; the fault itself is the one further key."""

    at: str = Field(description="The listener at which to inject")
    match: Match = Field(default=Match(), description="Which of its requests; unset: all")
    dose: Dose = Field(
        default=ALL,
        description="Of the matching requests: a share, {first: 3} or {burst: 5, every: 1m}",
    )
    when: Literal["before", "after"] = Field(
        default="before", description="Before the upstream, or after it has done the work"
    )
    per: Literal["request", "message"] = Field(
        default="request",
        description="message: each message of a WebSocket on its own; `when: after`: its answers",
    )
    unsafe: bool = Field(
        default=False,
        description="Allow `duplicate`, and `after` for methods that are not idempotent",
    )

    @property
    def fault(self) -> Fault:
        fault: Fault = next(f for name in KNOWN if (f := getattr(self, name, None)) is not None)
        return fault

    @model_validator(mode="before")
    @classmethod
    def _after_by_nature(cls, data: Any) -> Any:
        """What befalls the answer's body happens after the work was done, said or not."""
        if not isinstance(data, dict) or "when" in data:
            return data
        late = any(name in data and kind.stage == "after" for name, kind in KNOWN.items())
        return {**data, "when": "after"} if late else data

    @model_validator(mode="after")
    def _one_fault(self) -> "FaultRule":
        given = [name for name in KNOWN if getattr(self, name, None) is not None]
        if len(given) != 1:
            had = " and ".join(given) or "none"
            raise ValueError(f"must have one fault of {', '.join(KNOWN)}, not {had}")
        for problem in (self._wrong_stage(), self._wrong_unit(), self._risk()):
            if problem:
                raise ValueError(problem)
        return self

    def _wrong_stage(self) -> str | None:
        name, stage = self.fault.name, self.fault.stage
        if stage == "around" and self.when == "after":
            return f"`when` says nothing for {name}, which begins with the request"
        if stage == "after" and self.when == "before":
            return f"`when: before` cannot be for {name}, which befalls the answer"
        return None

    def _wrong_unit(self) -> str | None:
        if self.per == "message" and not self.fault.messages:
            able = ", ".join(name for name, kind in KNOWN.items() if kind.messages)
            return f"`per: message` is for {able}, not for {self.fault.name}"
        if self.per == "message" and self.dose.limit is not None:
            return "`per: message` takes a share as its dose"
        return None

    def _risk(self) -> str | None:
        if self.unsafe:
            return None
        if self.fault.unsafe:
            why = self.fault.unsafe
            return f"{self.fault.name} {why}; say `unsafe: true` if the upstream may see that"
        risky = [m for m in self.match.method if m not in IDEMPOTENT]
        if self.when == "after" and self.per == "request" and risky:
            said = "`when: after`" if self.fault.stage == "either" else self.fault.name
            return (
                f"{said} loses the answer to a {risky[0]} that took effect; "
                "say `unsafe: true` if clients may repeat it"
            )
        return None

    def spares(self, method: str) -> bool:
        """Whether a request passes because doing it twice could do harm."""
        if not method:  # raw bytes have none
            return False
        return self.when == "after" and not self.unsafe and method not in IDEMPOTENT


if TYPE_CHECKING:
    AnyFaultRule = FaultRule
else:
    # One optional field for each known fault: a new file in proxy/faults is enough.
    _fields: dict[str, Any] = {
        name: (kind | None, Field(default=None, description=kind.__doc__))
        for name, kind in KNOWN.items()
    }
    AnyFaultRule = create_model(
        "FaultRule", __base__=FaultRule, __doc__=FaultRule.__doc__, **_fields
    )


class SuccessRate(Strict):
    """The share of exchanges that are neither 5xx nor failed."""

    drop: ToleranceText = Field(description="By how much it may be lower than in control")


class Latency(Strict):
    """A quantile of the duration."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    rise: ToleranceText = Field(description="By how much it may be longer, such as 20%")

    @field_validator("rise")
    @classmethod
    def _relative(cls, value: Any) -> Any:
        return _need_coarse(_need_relative(value))


class Slow(Strict):
    """The share of exchanges that take longer than a threshold."""

    over: Positive
    rise: ToleranceText = Field(description="By how much it may be higher than in control")


class Rate(Strict):
    """Events per user share and time."""

    drop: ToleranceText = Field(description="By how much it may be lower, such as 5%")

    @field_validator("drop")
    @classmethod
    def _relative(cls, value: Any) -> Any:
        return _need_relative(value)


_VARIABLE = re.compile(r"\$(cohort|experiment|run|service)\b")


class Prometheus(Strict):
    """A number per cohort that a Prometheus server knows; see `prometheus` in sidecar.yaml."""

    query: str = Field(
        min_length=1,
        max_length=4096,
        description="PromQL about one cohort: $cohort stands for its name; also $experiment, $run "
        "and $service. With a label `replicate` on every series these are cumulative counts",
    )
    drop: ToleranceText | None = Field(
        default=None, description="By how much it may be lower, such as 5%; or rise"
    )
    rise: ToleranceText | None = Field(
        default=None, description="By how much it may be higher, such as 5%; or drop"
    )
    required: bool = Field(default=False, description="Stop the run when there is no data")

    @field_validator("query")
    @classmethod
    def _by_cohort(cls, value: str) -> str:
        if "cohort" not in _VARIABLE.findall(value):
            raise ValueError('must name the cohort by a matcher such as {cohort="$cohort"}')
        return value

    @field_validator("drop", "rise")
    @classmethod
    def _relative(cls, value: Any) -> Any:
        return None if value is None else _need_relative(value)

    @model_validator(mode="after")
    def _one_side(self) -> "Prometheus":
        if (self.drop is None) == (self.rise is None):
            raise ValueError(f"must have one of drop, rise, not {'both' if self.drop else 'none'}")
        return self

    @property
    def tolerance(self) -> Tolerance:
        side = self.drop or self.rise
        if side is None:  # pragma: no cover - _one_side has refused it
            raise ValueError("neither drop nor rise")
        return side

    def asked(self, values: Mapping[str, str]) -> str:
        """The query with its variables in place; another `$`, as in a regex, stays."""
        return _VARIABLE.sub(lambda found: values[found[1]], self.query)


def _need_coarse(value: Any) -> Any:
    """Within a bucket a quantile is a guess; a tolerance finer than that accepts anything."""
    if value.value < LATENCY_GROWTH - 1:
        least = percent(round(LATENCY_GROWTH - 1, 3))
        raise ValueError(f"must be at least {least}, the width of a latency bucket, not {value}")
    return value


def _need_relative(value: Any) -> Any:
    if not value.relative:
        raise ValueError(f"must be relative to control, such as 5%, not {value}")
    return value


KINDS = ("success_rate", "latency", "slow", "rate", "prometheus")

# What is measured by somebody else is measured at no listener; for editors.
_BY_KIND: JsonDict = {
    "if": {"required": ["prometheus"]},
    "then": {"properties": {"at": False, "match": False}},
    "else": {"required": ["at"]},
}


class Metric(Strict):
    """One number that must not get worse; one of the five kinds."""

    model_config = ConfigDict(json_schema_extra=_BY_KIND)

    name: Name
    at: str = Field(default="", description="The listener at which to measure; usually inbound")
    match: Outcome = Field(default=Outcome(), description="Which exchanges; unset: all")
    success_rate: SuccessRate | None = None
    latency: Latency | None = None
    slow: Slow | None = None
    rate: Rate | None = None
    prometheus: Prometheus | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Metric":
        given = [k for k in KINDS if getattr(self, k) is not None]
        if len(given) != 1:
            had = " and ".join(given) or "none"
            raise ValueError(f"must have one of {', '.join(KINDS)}, not {had}")
        return self

    @model_validator(mode="after")
    def _somewhere(self) -> "Metric":
        if self.prometheus is None:
            if "at" not in self.model_fields_set:
                raise ValueError("missing key 'at'")
            return self
        for key in ("at", "match"):
            if key in self.model_fields_set:
                raise ValueError(f"prometheus takes no `{key}`: its query says what is counted")
        return self

    @cached_property
    def kind(self) -> SuccessRate | Latency | Slow | Rate | Prometheus:
        kind = self.success_rate or self.latency or self.slow or self.rate or self.prometheus
        if kind is None:  # pragma: no cover - _one_kind has refused it
            raise ValueError(f"{self.name} has no kind")
        return kind

    @cached_property
    def tolerance(self) -> Tolerance:
        """How much worse it may get."""
        match self.kind:
            case SuccessRate(drop=drop) | Rate(drop=drop):
                return drop
            case Latency(rise=rise) | Slow(rise=rise):
                return rise
            case Prometheus() as outside:
                return outside.tolerance
            case other:
                assert_never(other)

    @property
    def lower_is_worse(self) -> bool:
        if self.prometheus is not None:
            return self.prometheus.drop is not None
        return self.success_rate is not None or self.rate is not None


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
        return self.experiment

    @property
    def salt(self) -> bytes:
        return salt_of(self.experiment, self.run)
