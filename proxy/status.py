"""The text of `counterfault status`."""

from collections.abc import Iterator
from typing import Any

from proxy.units import human


def lines(overview: dict[str, Any]) -> Iterator[str]:
    """A sidecar's state in lines, from the API's overview."""
    ready, wanted = overview["workers"]["ready"], overview["workers"]["wanted"]
    active = overview["faults_active"]
    yield f"{overview['service']}: {ready}/{wanted} workers, {active} faults active"
    if overview["killed"]:
        yield "the kill switch is on; `counterfault resume` lifts it"
    if overview["state_dir_error"]:
        yield f"no run starts: {overview['state_dir_error']}"
    yield from (f"last reload failed: {problem}" for problem in overview["reload_error"])
    if not overview["experiments"]:
        yield "no experiments"
    for experiment in overview["experiments"]:
        yield ""
        yield from _experiment(experiment)


def _experiment(experiment: dict[str, Any]) -> Iterator[str]:
    left = experiment["remaining"]
    until = f", {human(round(left) or 1)} left" if left is not None else ""
    because = f" ({experiment['reason']})" if experiment["reason"] else ""
    yield f"{experiment['name']} #{experiment['run']}  {experiment['state']}{until}{because}"
    for fault in experiment["faults"]:
        counts = ", ".join(f"{fault[k]} {k}" for k in ("performed", "overflow", "failed"))
        yield f"  {fault['fault']} at {fault['at']}: {counts}"
    for listener, cohorts in experiment["listeners"].items():
        for cohort, counted in cohorts.items():
            yield f"  {listener:<16} {cohort:<11} {_counted(counted)}"


def _counted(counted: dict[str, Any]) -> str:
    requests, errors = counted["requests"], counted["errors"]
    share = f"{errors / requests:.2%}" if requests else "-"
    times = "  ".join(
        f"{name} {human(counted[name]) if counted[name] is not None else '-'}"
        for name in ("p50", "p99")
    )
    return f"{requests:>8g} requests  {share:>7} errors  {times}"
