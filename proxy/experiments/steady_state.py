"""The model of the steady state: metrics, each with how much worse it may get."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, assert_never

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from counterfault.proxy.values.buckets import LATENCY_GROWTH
from counterfault.proxy.values.matching import ExchangeMatch, Strict
from counterfault.proxy.values.units import Name, Positive, Tolerance, ToleranceText, percent


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
    """Requests per user share and time; by default, if answered below 500."""

    drop: ToleranceText = Field(description="By how much it may be lower, such as 5%")

    @field_validator("drop")
    @classmethod
    def _relative(cls, value: Any) -> Any:
        return _need_relative(value)


_VARIABLE = re.compile(r"\$(cohort|experiment|run|service)\b")


class Prometheus(Strict):
    """A number per cohort, queried from the Prometheus server that sidecar.yaml names."""

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
        """How much worse it may get."""
        side = self.drop or self.rise
        if side is None:  # pragma: no cover - _one_side has refused it
            raise ValueError("neither drop nor rise")
        return side

    def asked(self, values: Mapping[str, str]) -> str:
        """Return the query with its variables replaced; any other `$`, as in a regex, stays."""
        return _VARIABLE.sub(lambda found: values[found[1]], self.query)


def _need_coarse(value: Any) -> Any:
    """Refuse a tolerance finer than a latency bucket, within which quantiles are only estimated."""
    if value.value < LATENCY_GROWTH - 1:
        least = percent(round(LATENCY_GROWTH - 1, 3))
        raise ValueError(f"must be at least {least}, the width of a latency bucket, not {value}")
    return value


def _need_relative(value: Any) -> Any:
    if not value.relative:
        raise ValueError(f"must be relative to control, such as 5%, not {value}")
    return value


type MetricKind = Literal["success_rate", "latency", "slow", "rate", "prometheus"]

KINDS: tuple[MetricKind, ...] = ("success_rate", "latency", "slow", "rate", "prometheus")

# For the JSON Schema: a metric of Prometheus is measured at no listener.
_BY_KIND: JsonDict = {
    "if": {"required": ["prometheus"]},
    "then": {"properties": {"at": False, "match": False}},
    "else": {"required": ["at"]},
}


class Metric(Strict):
    """One number that must not get worse, of one of five kinds."""

    model_config = ConfigDict(json_schema_extra=_BY_KIND)

    name: Name
    at: str = Field(default="", description="The listener at which to measure; usually inbound")
    match: ExchangeMatch = Field(default=ExchangeMatch(), description="Which exchanges; unset: all")
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
        """The settings of the metric's kind."""
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

    def counts(self, status: int | None) -> bool:
        """Whether an exchange that ended with this status is an event of the metric.

        `status` None: the client got no whole response. A rate whose match names no status counts
        what was answered below 500.
        """
        if self.rate is not None and not self.match.status:
            return status is not None and status < 500
        return self.match.counts(status)

    @cached_property
    def counts_arrivals(self) -> bool:
        """Whether each request is an event when it arrives, whatever becomes of it."""
        return self.rate is not None and self.match.any_status

    @property
    def lower_is_worse(self) -> bool:
        """Whether users are worse off when the number is lower."""
        if self.prometheus is not None:
            return self.prometheus.drop is not None
        return self.success_rate is not None or self.rate is not None
