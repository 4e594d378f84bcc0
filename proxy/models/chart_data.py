"""A run over time and its latencies, in columns for charts."""

from dataclasses import dataclass

from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.steady_state import MetricKind
from counterfault.proxy.models.json_model import EffectUnit, JsonModel


@dataclass(frozen=True, kw_only=True)
class MetricSeries(JsonModel):
    """A metric's levels at each point, and its estimate with bounds; null: unknown"""

    kind: MetricKind
    unit: EffectUnit
    allowed: float
    control: list[float | None]
    experiment: list[float | None]
    effect: list[float | None]
    lower: list[float | None]
    upper: list[float | None]


@dataclass(frozen=True, kw_only=True)
class LatencyHistogram(JsonModel):
    """Latencies of both cohorts: how many lie between each two edges"""

    name: str
    at: str
    """The listener"""
    edges: list[float]
    """Seconds; one more than counts"""
    control: list[int]
    experiment: list[int]


@dataclass(frozen=True, kw_only=True)
class ChartData(JsonModel):
    """The points of a run as columns of equal length, and its latencies as histograms"""

    at: list[float]
    """Unix seconds"""
    states: list[State]
    metrics: dict[str, MetricSeries]
    latencies: list[LatencyHistogram]
