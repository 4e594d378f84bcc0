"""Sentences that say what was found, without terms of statistics."""

from collections.abc import Sequence
from math import isfinite
from typing import assert_never

from counterfault.proxy.analysis.comparison import Comparison
from counterfault.proxy.experiments.steady_state import (
    KINDS,
    Latency,
    Metric,
    MetricKind,
    Prometheus,
    Rate,
    Slow,
    SuccessRate,
)
from counterfault.proxy.values.units import human

_NOTHING = 5e-7

WITHOUT_BASELINE = (
    "without a baseline the cohorts are not compared before the faults, nor control with its own"
    " past: faults that spread to control go unseen"
)
"""What `baseline: 0s` switches off."""


def finding(c: Comparison) -> str:
    """Return such as `checkout: 8.2 pp more requests failed (7.1 pp at least; 0.5 pp allowed)`."""
    allowed = f"{amount(c, c.metric.tolerance.value)} allowed"
    if c.no_data and not c.harmed:
        return f"{c.metric.name}: {c.no_data}"
    if c.plain:
        return f"{c.metric.name}: {_untested(c)} (a plain threshold, not a test; {allowed})"
    if c.effect is None or c.bounds is None:
        return f"{c.metric.name}: too few events ({allowed})"
    low, high = c.bounds
    bound = f"{amount(c, low)} at least" if c.harmed else f"{amount(c, high)} at most"
    return f"{c.metric.name}: {_said(c, c.effect)} ({bound}; {allowed})"


def worst(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the comparison whose effect is the largest part of its tolerance."""
    return max(comparisons, key=lambda c: (c.effect or 0.0) / c.metric.tolerance.value)


def amount(c: Comparison, effect: float) -> str:
    """Format an effect, a fraction, with its unit: % of control's level, or percentage points."""
    if not isfinite(effect):
        return "without bound" if effect > 0 else "nothing"
    unit = " %" if c.metric.tolerance.relative else " pp"
    return f"{effect * 100:.3g}{unit}"


def level(c: Comparison, value: float | None) -> str:
    """Format a level, in the unit of `Comparison.levels`, with that unit."""
    if value is None:
        return "-"
    match c.metric.kind:
        case Latency():
            return human(float(f"{value:.3g}"))
        case Prometheus() if c.plain:
            return f"{value:.4g}"
        case Rate() | Prometheus():
            return (
                f"{value:,.0f} per 1% of users" if value >= 100 else f"{value:.3g} per 1% of users"
            )
        case SuccessRate():
            return f"{value * 100:.3g}% failed"
        case Slow():
            return f"{value * 100:.3g}% slow"
        case other:
            assert_never(other)


def kind_of(metric: Metric) -> MetricKind:
    """Return the kind of a metric: one of `KINDS`."""
    return next(name for name in KINDS if getattr(metric, name) is not None)


def tolerance_of(metric: Metric) -> str:
    """Format a tolerance, such as `drop 0.5pp`, `p99 rise 20%` or `over 300ms rise 1pp`."""
    match metric.kind:
        case SuccessRate(drop=drop) | Rate(drop=drop):
            return f"drop {drop}"
        case Latency(quantile=q, rise=rise):
            return f"p{q * 100:g} rise {rise}"
        case Slow(over=over, rise=rise):
            return f"over {human(over)} rise {rise}"
        case Prometheus() as outside:
            return f"{'drop' if outside.drop else 'rise'} {outside.tolerance}"
        case other:
            assert_never(other)


def _untested(c: Comparison) -> str:
    if c.effect is None:
        return "no effect can be told, control's value not being above zero"
    lower = (c.effect >= 0) is c.metric.lower_is_worse
    lasting = round(c.reading.lasting) if c.reading is not None else 0
    so_long = f" for {human(lasting)}" if lasting else ""
    return f"{amount(c, abs(c.effect))} {'lower' if lower else 'higher'} than control{so_long}"


def _said(c: Comparison, effect: float) -> str:
    size, more = amount(c, abs(effect)), effect >= 0
    if abs(effect) < _NOTHING:
        return "no difference"
    match c.metric.kind:
        case SuccessRate() if not c.metric.tolerance.relative:
            return f"{size} {'more' if more else 'fewer'} requests failed"
        case SuccessRate():
            return f"{size} {'fewer' if more else 'more'} requests succeeded"
        case Latency(quantile=q):
            return f"p{q * 100:g} latency {size} {'higher' if more else 'lower'}"
        case Slow(over=over):
            return f"{size} {'more' if more else 'fewer'} requests took over {human(over)}"
        case Rate() | Prometheus():
            return f"{size} {'fewer' if more is c.metric.lower_is_worse else 'more'} events"
        case other:
            assert_never(other)
