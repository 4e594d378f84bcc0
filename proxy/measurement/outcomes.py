"""Where an exchange falls in a metric's sample."""

from counterfault.proxy.experiments.steady_state import (
    Latency,
    Metric,
    Prometheus,
    Rate,
    Slow,
    SuccessRate,
)
from counterfault.proxy.measurement import counters


def cell_of(metric: Metric, status: int | None, duration: float) -> str | int:
    """`good`, `bad` or the latency's bucket; an exchange without an answer is bad."""
    failed = status is None
    match metric.kind:
        case SuccessRate():
            return "bad" if failed or (status is not None and status >= 500) else "good"
        case Slow(over=over):
            return "bad" if failed or duration > over else "good"
        case Latency():
            return counters.latency_cell(duration)
        case Rate() | Prometheus():  # no listener has a metric of Prometheus'
            return "good"
