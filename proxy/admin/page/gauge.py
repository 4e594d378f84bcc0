"""Where an estimate, its bounds and its tolerance lie on a scale from better to worse."""

from dataclasses import dataclass
from typing import Any, Self

WIDTH = 100.0
# The scale reaches so many tolerances to each side, at least and at most.
_LEAST, _MOST = 2.0, 8.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """Positions from 0 (better) to 100 (worse); `low` and `high` are the bounds' ends."""

    zero: float
    allowed: float
    low: float
    high: float
    estimate: float

    @classmethod
    def of(cls, metric: dict[str, Any]) -> Self | None:
        """Of a metric as the API tells it; None while nothing is known."""
        effect, allowed = metric["effect"], metric["allowed"]
        if effect is None:
            return None
        ends = [abs(x) for x in (effect, metric["lower"], metric["upper"]) if x is not None]
        reach = min(max(_LEAST * allowed, 1.1 * max(ends)), _MOST * allowed)

        def at(value: float) -> float:
            position = (value / reach + 1) / 2 * WIDTH
            return float(round(min(max(position, 0.0), WIDTH), 2))

        low = -reach if metric["lower"] is None else metric["lower"]
        high = reach if metric["upper"] is None else metric["upper"]
        return cls(at(0.0), at(allowed), at(low), at(high), at(effect))

    @property
    def width(self) -> float:
        """Of the band; never nothing."""
        return round(max(self.high - self.low, 0.6), 2)
