"""Where an estimate, its bounds and its tolerance lie on a scale from better to worse."""

from dataclasses import dataclass
from typing import Self

from counterfault.proxy.models.run_summary import MetricSummary

WIDTH = 100.0
# The scale reaches at least and at most this many tolerances to each side.
_LEAST_TOLERANCES, _MOST_TOLERANCES = 2.0, 8.0
_NARROWEST_BAND = 0.6


@dataclass(frozen=True, slots=True)
class Gauge:
    """Positions on the scale, from 0 (better for users) to 100 (worse).

    Attributes:
        zero: Where the cohorts are alike.
        allowed: Where the tolerance ends.
        low: The lower bound; 0 without one.
        high: The upper bound; 100 without one.
        estimate: The effect.
    """

    zero: float
    allowed: float
    low: float
    high: float
    estimate: float

    @classmethod
    def of(cls, metric: MetricSummary) -> Self | None:
        """Return the gauge of a metric; None while its effect is unknown."""
        effect, allowed = metric.effect, metric.allowed
        if effect is None:
            return None
        ends = [abs(x) for x in (effect, metric.lower, metric.upper) if x is not None]
        reach = min(max(_LEAST_TOLERANCES * allowed, 1.1 * max(ends)), _MOST_TOLERANCES * allowed)

        def at(value: float) -> float:
            position = (value / reach + 1) / 2 * WIDTH
            return float(round(min(max(position, 0.0), WIDTH), 2))

        low = -reach if metric.lower is None else metric.lower
        high = reach if metric.upper is None else metric.upper
        return cls(at(0.0), at(allowed), at(low), at(high), at(effect))

    @property
    def width(self) -> float:
        """The width of the band between the bounds, wide enough to be seen."""
        return round(max(self.high - self.low, _NARROWEST_BAND), 2)
