"""The dashboard of one experiment: both cohorts side by side, the fault, the verdict."""

from collections.abc import Iterator

from grafana_foundation_sdk.builders import dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana import steady_state
from deploy.grafana.parts import (
    SOURCE,
    THIRD,
    VERDICTS,
    by_cohort,
    choice,
    colored,
    curves,
    dashed,
    figure,
    fixed,
    heat,
    page,
    steps,
    word,
)
from deploy.grafana.steady_state import EACH, EVENTS, RUN, evidence, needed

type Panel = timeseries.Panel | heatmap.Panel | stat.Panel | table.Panel

UID = "counterfault-experiment"
AT = f'{RUN}, listener="$listener"'
REQUESTS = "counterfault_requests_total"
SECONDS = "counterfault_request_duration_seconds"
FAULTS = "counterfault_faults_total"
STATE = "counterfault_experiment_state"
VERDICT = "counterfault_verdict"
SAMPLE_RATIO_ALPHA = 0.001
PHASES = {"baseline": "blue", "running": "orange", "recovering": "yellow"}
STATES = {**PHASES, "done": "green", "stopped": "red", "pending": "text"}
_AT_ODDS = "More than one: the sidecars of the service are not at one."


def build() -> dashboard.Dashboard:
    """The whole dashboard."""
    board = page(
        "counterfault / experiment",
        UID,
        "Did the users of the experiment fare worse than those of the control?",
    )
    for variable in _variables():
        board = board.with_variable(variable)
    for state, color in PHASES.items():
        board = board.annotation(_phase(state, color))
    for row, panels in (
        (dashboard.Row("At a glance"), _glance()),
        (dashboard.Row("Both cohorts at $listener"), _cohorts()),
        (dashboard.Row("Steady state: $metric").repeat("metric"), steady_state.panels()),
        (dashboard.Row("Are the cohorts sound?"), _users()),
        (dashboard.Row("The fault"), _faults()),
    ):
        board = board.with_row(row)
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _variables() -> Iterator[dashboard.QueryVariable | dashboard.CustomVariable]:
    yield choice("service", f"label_values({STATE}, service)")
    yield choice("experiment", f'label_values({STATE}{{service="$service"}}, experiment)')
    yield choice("listener", f"label_values({REQUESTS}{{{RUN}}}, listener)")
    yield choice("instance", f"label_values({STATE}{{{RUN}}}, instance)", many=True)
    yield choice("metric", f"label_values({EVENTS}{{{RUN}}}, metric)", many=True)
    yield (
        dashboard.CustomVariable("alpha")
        .description("1 - guard.confidence of the experiment")
        .values("0.05,0.01,0.1")
        .current(models.VariableOption(text="0.05", value="0.05", selected=True))
    )


def _phase(state: str, color: str) -> dashboard.AnnotationQuery:
    """A region for as long as a phase lasts: Grafana marks where a series is not 0."""
    return (
        dashboard.AnnotationQuery()
        .name(state)
        .datasource(SOURCE)
        .enable(enable=True)
        .icon_color(color)
        .expr(f'max by (state) ({STATE}{{{RUN}, state="{state}"}}) > 0')
    )


def _glance() -> Iterator[Panel]:
    state = f"max by (state) ({STATE}{{{RUN}}}) == 1"
    yield colored(word("State", state, "{{state}}", "unknown", _AT_ODDS), STATES)
    verdict = f"max by (verdict) ({VERDICT}{{{EACH}}}) == 1"
    yield colored(word("Verdict", verdict, "{{verdict}}", "none yet", _AT_ODDS), VERDICTS)
    yield figure(
        "Evidence of harm",
        f"clamp_min(max({evidence('harm')}) / {needed('harm')}, 0)",
        "percentunit",
        "How far the worst metric is on the way to a stop, on a log scale. At 100 % it stops.",
    ).thresholds(steps((None, "green"), (0.5, "orange"), (1, "red")))
    yield figure(
        "Evidence of no harm",
        f"clamp_min(min({evidence('within')}) / {needed('within')}, 0)",
        "percentunit",
        "How far the last metric is on the way to `held`, on a log scale.",
    ).thresholds(steps((None, "blue"), (1, "green")))
    everybody = f'{REQUESTS}{{service="$service", listener="$listener"}}'
    yield figure(
        "At risk",
        f"{_rate(f'{REQUESTS}{{{AT}, cohort="experiment"}}')} / {_rate(everybody)}",
        "percentunit",
        "The experiment's share of the requests at $listener.",
    )
    yield figure(
        "Faults",
        f'sum(increase({FAULTS}{{{RUN}, result="performed"}}[$__range]))',
        says="Performed in the time that is shown.",
    ).decimals(0)


def _cohorts() -> Iterator[Panel]:
    requests = f"sum by (cohort) (rate({REQUESTS}{{{AT}}}[$__rate_interval]))"
    bad = f'sum by (cohort) (rate({REQUESTS}{{{AT}, code=~"5xx|error"}}[$__rate_interval]))'
    yield by_cohort("Requests", {"{{cohort}}": requests}, "reqps")
    yield by_cohort(
        "Errors",
        {"{{cohort}}": f"{bad} / {requests}"},
        "percentunit",
        "Answered with 5xx, or with no whole answer.",
    )
    for name, quantile in {"p50": 0.5, "p95": 0.95, "p99": 0.99}.items():
        yield by_cohort(f"Latency {name}", {"{{cohort}}": _quantile(quantile)}, "s").span(THIRD)
    for cohort, scheme in {"control": "Greens", "experiment": "Oranges"}.items():
        buckets = f'{SECONDS}_bucket{{{AT}, cohort="{cohort}"}}'
        expr = f"sum by (le) (increase({buckets}[$__rate_interval]))"
        yield heat(f"Latencies, {cohort}", expr, scheme)


def _users() -> Iterator[Panel]:
    met = f"max by (cohort) (counterfault_users{{{EACH}}})"
    yield by_cohort(
        "Users met",
        {"{{cohort}}": met},
        "short",
        "By the sidecar that has met most. A user may meet several.",
    )
    yield curves(
        "Sample ratio",
        {
            "evidence": f"max(counterfault_sample_ratio_evidence{{{EACH}}})",
            "invalid from here": f"ln(1 / vector({SAMPLE_RATIO_ALPHA}))",
        },
        "short",
        "That the cohorts are not as large as their shares say: then the comparison is worthless.",
    ).override_by_name("invalid from here", [fixed("purple"), dashed()])


def _faults() -> Iterator[Panel]:
    results = f"sum by (fault, listener, result) (rate({FAULTS}{{{RUN}}}[$__rate_interval]))"
    yield curves(
        "Faults",
        {"{{fault}} at {{listener}}: {{result}}": results},
        "cps",
        "overflow: a limit was reached, and the request passed. failed: it could not be done.",
    )
    service = 'service="$service"'
    yield curves(
        "Under way, and the lease",
        {
            "faults under way": f"sum(counterfault_faults_active{{{service}}})",
            "lease left (s)": f"min(counterfault_lease_remaining_seconds{{{service}}})",
        },
        "short",
        "Faults end when the lease does, whatever has become of the supervisor.",
    )


def _rate(series: str) -> str:
    return f"sum(rate({series}[$__rate_interval]))"


def _quantile(quantile: float) -> str:
    buckets = f"sum by (le, cohort) (rate({SECONDS}_bucket{{{AT}}}[$__rate_interval]))"
    return f"histogram_quantile({quantile}, {buckets})"
