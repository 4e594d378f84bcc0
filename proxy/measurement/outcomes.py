"""The outcome of an exchange for a steady-state metric."""

from counterfault.proxy.experiments.steady_state import (
    Latency,
    Metric,
    Prometheus,
    Rate,
    Slow,
    SuccessRate,
)
from counterfault.proxy.values.buckets import latency_bucket


def outcome_of(metric: Metric, status: int | None, duration: float) -> str | int:
    """`good`, `bad`, or the index of the latency bucket for a metric of latencies.

    `status` None: the client got no whole response, which is bad. `duration` is in seconds.
    """
    failed = status is None
    match metric.kind:
        case SuccessRate():
            return "bad" if failed or (status is not None and status >= 500) else "good"
        case Slow(over=over):
            return "bad" if failed or duration > over else "good"
        case Latency():
            return latency_bucket(duration)
        case Rate() | Prometheus():  # a metric of Prometheus is measured at no listener
            return "good"
