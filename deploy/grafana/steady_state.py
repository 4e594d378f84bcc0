"""The panels of a steady-state metric: its events, the cohorts' difference, how sure it is."""

from collections.abc import Iterator

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.parts import THIRD, by_cohort, curves, dashed, fixed

RUN = 'service="$service", experiment="$experiment"'
# Each sidecar of a service judges by itself: there are as many verdicts as sidecars.
EACH = f'{RUN}, instance=~"$instance"'
EVENTS = "counterfault_steady_state_events_total"
_METRIC = f'{EACH}, metric="$metric"'


def panels() -> Iterator[timeseries.Panel]:
    """A row that is repeated for each metric."""
    for panel in (_events(), _effect(), _evidence()):
        yield panel.span(THIRD)


def evidence(side: str) -> str:
    """The log evidence of all metrics."""
    return f'counterfault_evidence{{{EACH}, side="{side}"}}'


def needed(side: str) -> str:
    """The log evidence that decides: harm is tested for each metric, within for all of them."""
    metrics = f"count(count by (metric) ({evidence('harm')}))"
    return f"ln({metrics} / $alpha)" if side == "harm" else "ln(1 / vector($alpha))"


def _events() -> timeseries.Panel:
    rates = (
        f"sum by (cohort) (rate({EVENTS}{{{labels}}}[$__rate_interval]))"
        for labels in (_METRIC, f'{_METRIC}, outcome="bad"')
    )
    return by_cohort(
        "Events",
        dict(zip(("{{cohort}}", "bad {{cohort}}"), rates, strict=True)),
        "cps",
        "While the faults are on. Bad is what the steady state counts as bad.",
    )


def _effect() -> timeseries.Panel:
    # Instances share users, so their bounds must not be averaged: the widest hold for all.
    widest = {"upper": "max(", "estimate": "quantile(0.5, ", "lower": "min("}
    bounds = {
        bound: f'{over}counterfault_effect{{{_METRIC}, bound="{bound}"}})'
        for bound, over in widest.items()
    }
    says = (
        "How much worse the experiment is, with anytime-valid bounds. Of several instances: the"
        " widest bounds, and the middle estimate."
    )
    band = models.DynamicConfigValue("custom.fillBelowTo", "lower")
    return (
        curves("Effect", bounds, "percentunit", says)
        .override_by_name("upper", [fixed("#d95f02"), band])
        .override_by_name("lower", [fixed("#d95f02")])
        .override_by_name("estimate", [fixed("text")])
    )


def _evidence() -> timeseries.Panel:
    sides = {
        "harm": f'max(counterfault_evidence{{{_METRIC}, side="harm"}})',
        "within": f'min(counterfault_evidence{{{_METRIC}, side="within"}})',
        "harm stops here": needed("harm"),
        "within holds here": needed("within"),
    }
    says = "Natural log of the e-values. Above its line, harm stops the experiment."
    return (
        curves("Evidence", sides, "short", says)
        .override_by_regexp("harm.*", [fixed("red")])
        .override_by_regexp("within.*", [fixed("green")])
        .override_by_regexp(".*here", [dashed()])
    )
