"""The outcome of an exchange for a steady-state metric."""

from counterfault.proxy.experiments.steady_state import (
    Latency,
    Metric,
    Prometheus,
    Rate,
    Slow,
    SuccessRate,
)


def outcome_of(metric: Metric, status: int | None, duration: float) -> str | int:
    """Return `good`, `bad`, or for a metric of latencies the index of the cell.

    An exchange has failed if its status is 5xx, or None: the client got no whole response. Then it
    is bad, and beyond every bound: what failed, or what its client gave up, has no latency, and a
    service that fails quickly is not a quick one. `duration` is in seconds.
    """
    failed = status is None or status >= 500
    match kind := metric.kind:
        case SuccessRate():
            return "bad" if failed else "good"
        case Slow(over=over):
            return "bad" if failed or duration > over else "good"
        case Latency():
            # A failed exchange never gave an answer: it took longer than any that did.
            return kind.cells.beyond if failed else kind.cells.cell(duration)
        case Rate() | Prometheus():  # a metric of Prometheus is measured at no listener
            return "good"
