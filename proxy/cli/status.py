"""The text of `counterfault status`."""

import time
from collections.abc import Callable, Iterator

from rich.live import Live
from rich.text import Text

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.overview import (
    CohortTraffic,
    ExperimentSummary,
    MetricForecast,
    Overview,
)
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.values.units import human, roughly

# Seconds between two looks of `--watch`.
_INTERVAL = 1.0


def watch(look: Callable[[], str]) -> None:
    """Show what `look` returns, once a second, until it raises or the user interrupts."""
    with Live(Text(look()), auto_refresh=False) as live:
        while True:
            time.sleep(_INTERVAL)
            live.update(Text(look()), refresh=True)


def lines(overview: Overview) -> Iterator[str]:
    """Yield the state of a sidecar and of its experiments in lines."""
    ready, wanted = overview.workers.ready, overview.workers.wanted
    yield f"{overview.service}: {ready}/{wanted} workers, {overview.faults_active} faults active"
    if overview.killed:
        yield "the kill switch is on; `counterfault resume` lifts it"
    if overview.state_dir_error:
        yield f"no run starts: {overview.state_dir_error}"
    yield from (f"last reload failed: {problem}" for problem in overview.reload_error)
    if not overview.experiments:
        yield "no experiments"
    for experiment in overview.experiments:
        yield ""
        yield from _experiment(experiment)


def _experiment(e: ExperimentSummary) -> Iterator[str]:
    until = f", {human(round(e.remaining) or 1)} left" if e.remaining is not None else ""
    because = f" ({e.reason})" if e.reason else ""
    yield f"{e.name} #{e.run}  {e.state}{until}{because}"
    yield from _verdict(e)
    for f in e.faults:
        counts = f"{f.performed} performed, {f.overflow} overflow, {f.failed} failed"
        yield f"  {f.fault} at {f.at}: {counts}"
    for listener, traffic in e.listeners.items():
        for cohort in ENROLLED:
            yield f"  {listener:<16} {cohort:<11} {_traffic(of_cohort(traffic, cohort))}"


def _verdict(e: ExperimentSummary) -> Iterator[str]:
    so_far = " so far" if e.verdict.provisional else ""
    result = f"{e.verdict.result}{so_far}"
    if e.verdict.provisional and e.state in ("pending", "baseline"):
        result = "no verdict yet"
    yield f"  {result}: {e.verdict.reason}"
    if e.dose.planned:
        performed = f"{e.dose.performed} of {e.dose.planned} faults due performed"
        yield f"  dose: {performed} ({e.dose.share:.0%})"
    forecasts = {forecast.metric: forecast for forecast in e.forecast}
    for metric in e.metrics:
        yield f"  {metric.says}{_expected(metric, forecasts.get(metric.name))}"


def _expected(metric: MetricSummary, forecast: MetricForecast | None) -> str:
    """Return how long it takes until a metric can be said to be within its tolerance."""
    if metric.harmed:
        return "; worse than allowed"
    if metric.within:
        return "; within tolerance"
    if forecast is None:
        return ""
    if forecast.seconds is None:
        return "; nothing comes that could decide it"
    return f"; about {roughly(forecast.seconds)} more at the present rate"


def _traffic(traffic: CohortTraffic) -> str:
    requests, errors = traffic.requests, traffic.errors
    share = f"{errors / requests:.2%}" if requests else "-"
    times = f"p50 {_latency(traffic.p50)}  p99 {_latency(traffic.p99)}"
    return f"{requests:>8g} requests  {share:>7} errors  {times}"


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else human(seconds)
