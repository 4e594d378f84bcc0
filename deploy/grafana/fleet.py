"""The dashboard of the fleet: all services and experiments, who is at risk, what is not well."""

from collections.abc import Iterator

from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries

from deploy.grafana.parts import choice, curves, figure, page, rows, steps

type Panel = timeseries.Panel | stat.Panel | table.Panel

UID = "counterfault-fleet"
OF = 'service=~"$service"'
REQUESTS = "counterfault_requests_total"
STATE = f"counterfault_experiment_state{{{OF}}}"
VERDICT = f"counterfault_verdict{{{OF}}}"
RELOADED = f"counterfault_config_last_reload_successful{{{OF}}}"
BUILDS = f"counterfault_build_info{{{OF}}}"


def build() -> dashboard.Dashboard:
    """The whole dashboard."""
    board = page(
        "counterfault / fleet",
        UID,
        "Every experiment of every service: who is at risk now, and what needs attention.",
    ).with_variable(choice("service", "label_values(counterfault_build_info, service)", many=True))
    for title, panels in {
        "Now": _now(),
        "Experiments": _experiments(),
        "Users at risk": _risk(),
        "Is the sidecar well?": _health(),
    }.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _now() -> Iterator[Panel]:
    yield figure("Services", f"count(count by (service) ({BUILDS}))")
    yield figure("Sidecars", f"count({BUILDS})")
    running = STATE.replace("}", ', state="running"}')
    yield figure("Faults are on", f"sum(max by (service, experiment) ({running}))")
    refuted = VERDICT.replace("}", ', verdict="refuted"}')
    yield figure("Refuted", f"sum(max by (service, experiment) ({refuted}))").thresholds(
        steps((None, "green"), (1, "red"))
    )
    yield figure(
        "Reloads that failed",
        f"count({RELOADED}) - sum({RELOADED})",
        says="Sidecars whose configuration on disk is not the one in use.",
    ).thresholds(steps((None, "green"), (1, "red")))
    errors = f"counterfault_internal_errors_total{{{OF}}}"
    yield figure(
        "Internal errors", f"sum(increase({errors}[$__range]))", says="Traffic passed all the same."
    ).thresholds(steps((None, "green"), (1, "orange")))


def _experiments() -> Iterator[Panel]:
    present = "The one that is in the column is the present one."
    state = f"max by (service, experiment, state) ({STATE}) == 1"
    yield rows("States", state, says=present)
    yield rows("Verdicts", f"max by (service, experiment, verdict) ({VERDICT}) == 1", says=present)


def _risk() -> Iterator[Panel]:
    inbound = f'{OF}, listener="inbound"'
    by = "sum by (service)"
    everybody = f"{by} (rate({REQUESTS}{{{inbound}}}[$__rate_interval]))"
    for cohort in ("experiment", "control"):
        share = f'{by} (rate({REQUESTS}{{{inbound}, cohort="{cohort}"}}[$__rate_interval]))'
        yield curves(
            f"Share of requests: {cohort}",
            {"{{service}}": f"{share} / {everybody}"},
            "percentunit",
            "Of all requests at the listener `inbound`.",
        ).min(0)
    met = f'counterfault_users{{{OF}, cohort="experiment"}}'
    running = STATE.replace("}", ', state="running"}')
    yield curves(
        "Users at risk, at most",
        {
            "{{service}} {{experiment}}": (
                f"sum by (service, experiment) ({met} * on (service, experiment, instance)"
                f" group_left () {running})"
            )
        },
        "short",
        "Users whom a running experiment has met. One that meets several sidecars counts for each.",
    ).min(0)
    faults = f"counterfault_faults_total{{{OF}}}"
    yield curves(
        "Faults",
        {
            "{{service}} {{experiment}}: {{result}}": (
                f"sum by (service, experiment, result) (rate({faults}[$__rate_interval]))"
            )
        },
        "cps",
    )
    yield curves(
        "Faults under way",
        {"{{service}}": f"{by} (counterfault_faults_active{{{OF}}})"},
        "short",
        "`limits.active_faults` bounds them for each sidecar.",
    ).min(0)


def _health() -> Iterator[Panel]:
    yield curves(
        "Lease left, shortest of each service",
        {"{{service}}": f"min by (service) (counterfault_lease_remaining_seconds{{{OF}}})"},
        "s",
        "At 0 no fault happens: the supervisor does not get to renew it.",
    ).min(0)
    errors = f"counterfault_internal_errors_total{{{OF}}}"
    yield curves(
        "Internal errors",
        {"{{service}} {{where}}": (f"sum by (service, where) (rate({errors}[$__rate_interval]))")},
        "cps",
        "Errors of counterfault's own. Traffic passed all the same.",
    )
    age = f"time() - counterfault_config_last_reload_timestamp_seconds{{{OF}}}"
    yield curves("Since the last good reload", {"{{service}} {{instance}}": age}, "s")
    yield rows("Versions", f"max by (service, instance, version, mitmproxy, python) ({BUILDS})")
