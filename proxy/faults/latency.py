"""`latency`: the exchange takes longer, by an amount drawn from a distribution.

Every distribution has one inverse distribution function: `quantile(u)`, 0 <= u < 1, in seconds.
Unbounded tails end at their 99.9th percentile, so that no user waits for ever by chance.
"""

from itertools import pairwise
from math import exp, log
from statistics import NormalDist
from typing import Annotated, Any, override

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from counterfault.proxy.faults.actions import Action, Delay
from counterfault.proxy.faults.base import Fault, Random, named_file
from counterfault.proxy.faults.recorded_latency import Recorded, recorded
from counterfault.proxy.values.matching import Strict
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Duration, Positive, human, shown

# The longest delay, in seconds.
LONGEST = 3600.0
# The quantile at which an unbounded distribution is cut off.
TAIL = 0.999
_PERCENTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_NORMAL = NormalDist()

Amount = Annotated[Duration, Field(le=LONGEST)]
Percentile = Annotated[Positive, Field(le=LONGEST)]


def _recorded(value: Any, info: ValidationInfo) -> Recorded:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a file's name, not {shown(value)}")
    return recorded(value, named_file(value, info), LONGEST)


RecordedFile = Annotated[Recorded, BeforeValidator(_recorded), WithJsonSchema({"type": "string"})]


class Lognormal(Strict):
    """A lognormal distribution: the usual shape of a service's latencies."""

    median: Percentile = Field(description="Half of the requests wait longer")
    sigma: Annotated[float, Field(gt=0, le=3)] = Field(
        description="Standard deviation of the logarithm; 0.5 puts p99 at 3.2 medians, 1 at 10"
    )

    def __str__(self) -> str:
        return f"median {human(self.median)}, sigma {self.sigma:g}"


class Latency(Fault, name="latency", scalar="fixed"):
    """A delay: fixed, mean and jitter, percentiles, lognormal, or as it was recorded."""

    messages = True
    tcp = True
    fixed: Amount | None = Field(default=None, description="The same delay for every request")
    mean: Amount | None = Field(default=None, description="Middle of an even spread; with jitter")
    jitter: Amount | None = Field(default=None, description="Half the width of the spread")
    p50: Percentile | None = Field(default=None, description="Half of the requests wait longer")
    p75: Percentile | None = None
    p90: Percentile | None = None
    p95: Percentile | None = None
    p99: Percentile | None = Field(default=None, description="One in a hundred waits longer")
    p999: Percentile | None = None
    lognormal: Lognormal | None = None
    recorded: RecordedFile | None = Field(
        default=None,
        description="A file of up to 1 MiB beside the experiment's: a value a line, or le,count",
    )
    max: Percentile | None = Field(default=None, description="No delay is longer than this")

    @field_validator("p75", "p90", "p95", "p99", "p999")
    @classmethod
    def _rising(cls, value: float | None, info: ValidationInfo) -> float | None:
        lower = [(n, v) for n in _PERCENTILES if n != info.field_name and (v := info.data.get(n))]
        if value is not None and lower and value < lower[-1][1]:
            raise ValueError(f"must be at least {lower[-1][0]} ({human(lower[-1][1])})")
        return value

    @model_validator(mode="after")
    def _one_distribution(self) -> "Latency":
        kinds = [
            k for k in ("fixed", "mean", "lognormal", "recorded") if getattr(self, k) is not None
        ]
        kinds += ["percentiles"] if self._points else []
        if len(kinds) != 1:
            wrong = " and ".join(kinds) or "none of them"
            known = "fixed, mean, percentiles, lognormal, recorded"
            raise ValueError(f"must have one of {known}, not {wrong}")
        if (self.mean is None) != (self.jitter is None):
            raise ValueError("must have mean and jitter together")
        if self.mean is not None and self.jitter is not None and self.jitter > self.mean:
            raise ValueError(f"jitter must be at most mean ({human(self.mean)})")
        return self

    @property
    def _points(self) -> list[tuple[str, float]]:
        named = ((name, getattr(self, name)) for name in _PERCENTILES)
        return [(name, value) for name, value in named if value is not None]

    def quantile(self, u: float) -> float:
        """Return the delay in seconds that a share `u`, 0 to 1, of the requests stays below."""
        if self.fixed is not None:
            drawn = self.fixed
        elif self.mean is not None and self.jitter is not None:
            drawn = self.mean + (2 * u - 1) * self.jitter
        elif self.lognormal is not None:
            drawn = self.lognormal.median * exp(self.lognormal.sigma * _z(u))
        elif self.recorded is not None:
            drawn = self.recorded.quantile(u)
        else:
            drawn = _between(self._points, u)
        return min(drawn, self.max or LONGEST)

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Delay(self.quantile(random()))

    @override
    def describe(self) -> str:
        if self.recorded is None:
            return super().describe()
        middle, tail = (human(self.quantile(u)) for u in (0.5, 0.99))
        return f"latency as in {self.recorded.file} (p50 {middle}, p99 {tail})"


def _z(u: float) -> float:
    return _NORMAL.inv_cdf(min(max(u, 1 - TAIL), TAIL))


def _between(points: list[tuple[str, float]], u: float) -> float:
    """Return the quantile `u`, in seconds, of a distribution known by some percentiles.

    Between two percentiles the logarithm of the delay is linear in the normal score; the outer
    lines are extended.
    """
    places = [(_NORMAL.inv_cdf(_PERCENTILES[name]), log(value)) for name, value in points]
    if len(places) == 1:
        return exp(places[0][1])
    z = _z(u)
    (z0, v0), (z1, v1) = next(
        (pair for pair in pairwise(places) if z <= pair[1][0]), (places[-2], places[-1])
    )
    return exp(v0 + (v1 - v0) * (z - z0) / (z1 - z0))
