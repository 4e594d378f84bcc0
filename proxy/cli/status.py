"""The text of `counterfault status`."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.live import Live
from rich.text import Text

from counterfault.proxy.values.units import human, roughly

_EVERY = 1.0


def watch(look: Callable[[], str]) -> None:
    """Show what `look` says, again and again, until interrupted or until it raises."""
    with Live(Text(look()), auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY)
            live.update(Text(look()), refresh=True)


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
    yield from _verdict(experiment)
    for fault in experiment["faults"]:
        counts = ", ".join(f"{fault[k]} {k}" for k in ("performed", "overflow", "failed"))
        yield f"  {fault['fault']} at {fault['at']}: {counts}"
    for listener, cohorts in experiment["listeners"].items():
        for cohort, counted in cohorts.items():
            yield f"  {listener:<16} {cohort:<11} {_counted(counted)}"


def _verdict(experiment: dict[str, Any]) -> Iterator[str]:
    verdict, dose = experiment["verdict"], experiment["dose"]
    so_far = " so far" if verdict["provisional"] else ""
    yield f"  {verdict['result']}{so_far}: {verdict['reason']}"
    if dose["planned"]:
        share = f"{dose['share']:.0%}"
        yield f"  dose: {dose['performed']} of {dose['planned']} faults due performed ({share})"
    expected = {told["metric"]: told for told in experiment["forecast"]}
    for metric in experiment["metrics"]:
        yield f"  {metric['says']}{_expected(metric, expected.get(metric['name']))}"


def _expected(metric: dict[str, Any], forecast: dict[str, Any] | None) -> str:
    """How long until a metric can be said to be within its tolerance."""
    if metric["harmed"]:
        return "; worse than allowed"
    if metric["within"]:
        return "; within tolerance"
    if forecast is None:
        return ""
    if forecast["seconds"] is None:
        return "; nothing comes that could decide it"
    return f"; about {roughly(forecast['seconds'])} more at the present rate"


def _counted(counted: dict[str, Any]) -> str:
    requests, errors = counted["requests"], counted["errors"]
    share = f"{errors / requests:.2%}" if requests else "-"
    times = "  ".join(
        f"{name} {human(counted[name]) if counted[name] is not None else '-'}"
        for name in ("p50", "p99")
    )
    return f"{requests:>8g} requests  {share:>7} errors  {times}"
