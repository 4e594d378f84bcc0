"""What the demo prints: sentences, both cohorts while a run goes on, and a table at the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import HORIZONTALS
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.demo.outcome import Outcome
from counterfault.proxy.demo.scenarios import Scenario
from counterfault.proxy.experiments.lifecycle import OVER, State
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.overview import ExperimentSummary
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.values.units import human

PHASES = {
    "pending": "about to start",
    "baseline": "measuring both groups first, no faults yet",
    "running": "the faults are on",
    "recovering": "the faults are off, both groups should be alike again",
    "done": "over",
    "stopped": "stopped",
}
COHORTS = {"control": "control (left alone)", "experiment": "experiment (gets the fault)"}
_COLOURS = {Result.HELD: "green", Result.REFUTED: "red"}
# Without a terminal: a line every so many seconds, and one at each new phase.
_LINE_EVERY = 5.0
_WIDTH = 110

type Follow = Callable[[ExperimentSummary], None]


class TourConsole:
    """Prints to a terminal or, as plain lines, to a log."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock

    def say(self, text: str) -> None:
        """Print plain text."""
        self._console.print(escape(text), soft_wrap=not self._console.is_terminal)

    def announce(self, act: Scenario) -> None:
        """Print what is about to happen and what is foretold."""
        self._console.print(f"\n[bold]{act.title}[/bold]")
        self.say(act.tells)

    @contextmanager
    def following(self) -> Iterator[Follow]:
        """Return a function that shows a run as it is now."""
        if not self._console.is_terminal:
            yield self._line_by_line()
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda seen: live.update(cohorts(seen), refresh=True)

    def conclude(self, outcomes: Sequence[Outcome]) -> None:
        """Print the table of verdicts, and whether all were as foretold."""
        self._console.print()
        self._console.print(verdicts(outcomes))
        self.say("Below each effect: its bounds, which hold however often one looks.")
        if all(outcome.as_foretold for outcome in outcomes):
            self.say("Every experiment ended as foretold.")
        for outcome in outcomes:
            if not outcome.as_foretold:
                self.say(_surprise(outcome))

    def _line_by_line(self) -> Follow:
        phase, due = "", 0.0

        def follow(seen: ExperimentSummary) -> None:
            nonlocal phase, due
            if seen.state != phase or self._clock() >= due:
                phase, due = seen.state, self._clock() + _LINE_EVERY
                self.say(line(seen))

        return follow


def make_console() -> Console:
    """Return standard output; without a terminal, which says its width, it is wider than 80."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def phase_of(seen: ExperimentSummary) -> str:
    """Return a run's phase, such as `the faults are on, 12s left`."""
    left = seen.remaining
    until = "" if left is None else f", {human(max(round(left), 1))} left"
    because = f": {seen.reason}" if seen.reason else ""
    return PHASES[seen.state] + until + because


def faults(count: int) -> str:
    """Return how many faults happened, such as `1 fault performed`."""
    return f"{count} fault{'' if count == 1 else 's'} performed"


def _performed(seen: ExperimentSummary) -> str:
    return faults(sum(fault.performed for fault in seen.faults))


def line(seen: ExperimentSummary) -> str:
    """Return a run in one line."""
    halves = []
    for cohort in COHORTS:
        requests, failed, p50, p99 = _traffic(seen, cohort)
        halves.append(f"{cohort} {requests} requests, {failed} failed, p50 {p50}, p99 {p99}")
    return f"[{phase_of(seen)}] {'; '.join(halves)}; {_performed(seen)}"


def cohorts(seen: ExperimentSummary) -> Table:
    """Return a table of both cohorts of a run, as the shop's users see it."""
    table = Table(
        title=f"{seen.name}: {phase_of(seen)}",
        caption=f"{_performed(seen)}; latency as users see it, faults included",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("users", min_width=27)
    for heading in ("requests", "failed", "p50", "p99"):
        table.add_column(heading, justify="right", min_width=9)
    for cohort, label in COHORTS.items():
        table.add_row(label, *_traffic(seen, cohort))
    return table


def verdicts(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of all hypotheses with their metrics, two lines each; it fits 80 columns."""
    title = "Which hypothesis held?"
    table = Table(title=title, title_justify="left", box=HORIZONTALS, show_lines=True)
    table.padding = (0, 1, 0, 0)
    table.add_column("experiment")
    table.add_column("steady state", no_wrap=True)
    for heading in ("control", "experiment", "users worse by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for o in outcomes:
        columns = zip(*(_cells(m) for m in o.seen.metrics), strict=True)
        table.add_row(_judged(o), *("\n".join(column) for column in columns))
    return table


def _judged(o: Outcome) -> str:
    foretold = "as foretold" if o.as_foretold else f"not {o.act.foretold}"
    result = f"[{_COLOURS.get(o.result, 'yellow')}]{o.result}[/], {foretold}"
    hypothesis, reason = escape(o.seen.hypothesis), escape(o.reason)
    return f"[bold]{o.act.name}[/bold]\n{hypothesis}\n{result}: {reason}\n{faults(o.performed)}"


def _cells(metric: MetricSummary) -> tuple[str, ...]:
    (control, experiment), unit = metric.levels, metric.unit
    return (
        f"{metric.name}\n{metric.tolerance}",
        f"{control}\nof {metric.control.events}",
        f"{experiment}\nof {metric.experiment.events}",
        f"{_effect(metric.effect, unit)}\n"
        f"{_effect(metric.lower, unit)} to {_effect(metric.upper, unit)}",
    )


def _effect(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value * 100:+.1f} {unit}"


def _traffic(seen: ExperimentSummary, cohort: str) -> tuple[str, str, str, str]:
    """Return a cohort's requests, share of failures, p50 and p99 in the phase that is told.

    That is the present phase or, of a run that is over, the one with the faults.
    """
    told = State.RUNNING if seen.state in OVER else seen.state
    both = seen.listeners["inbound"].phases.get(told)
    if both is None:
        return "0", "-", "-", "-"
    counted = of_cohort(both, cohort)
    requests, errors = counted.requests, counted.errors
    failed = f"{errors / requests:.1%}" if requests else "-"
    times = (counted.p50, counted.p99)
    p50, p99 = (f"{t * 1000:.0f} ms" if t is not None else "-" for t in times)
    return f"{requests}", failed, p50, p99


def _surprise(outcome: Outcome) -> str:
    because = f" ({outcome.reason})"
    name, foretold = outcome.act.name, outcome.act.foretold
    return f"Not as foretold: {name} was {outcome.result}{because}, not {foretold}."
