"""Numbers and times in the words of the page."""

from dataclasses import dataclass
from datetime import UTC, datetime

from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.models.overview import ExperimentSummary
from counterfault.proxy.models.run_summary import UsersSummary
from counterfault.proxy.values.units import percent

DASH = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class PhaseBar:
    """A phase in the progress bar of a run; positions and widths are of 100.

    Attributes:
        name: The state of the run in this phase.
        x: Where the phase begins.
        width: How wide it is.
        done: How much of the width is over.
    """

    name: str
    x: float
    width: float
    done: float


def seconds(value: float | None) -> str:
    """Return a latency in seconds as `1.23 s` or `45.6 ms`; None is a dash."""
    if value is None:
        return DASH
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def duration(value: float) -> str:
    """Return a number of seconds as `9 s`, `1 min 05 s`, `2 h 00 min` or `3 days 4 h`."""
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def count(value: int) -> str:
    """Return a number with narrow spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def share(part: float, whole: float) -> str:
    """Return a share such as `98.7 %`; a dash if the whole is 0."""
    return f"{part / whole * 100:.3g} %" if whole else DASH


def effect(value: float | None, unit: str) -> str:
    """Return an effect, a fraction, as `+1.2 pp` or `−20 %`; None is a dash."""
    if value is None:
        return DASH
    return f"{value * 100:+.3g} {unit}".replace("-", "\N{MINUS SIGN}")


def utc(at: float) -> str:
    """Return a time in Unix seconds in the form that `<time datetime>` needs."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """Return a time in Unix seconds for a reader without scripts, as `12 Jan 13:47:40 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M:%S UTC")


def sample_ratio(users: UsersSummary) -> str:
    """Return the experiment's share of the users, and the configured share."""
    both = users.control + users.experiment
    if not both:
        return "no users yet"
    asked = users.expected_share
    rest = f", {percent(round(asked, 4))} expected" if asked is not None else ""
    met = "" if users.unseen is None else f"; harm to under 1 in {1 / users.unseen:,.0f} is unseen"
    return f"{share(users.experiment, both)} in experiment{rest}{met}"


def until_verdict(e: ExperimentSummary) -> str:
    """Return how long until all metrics can be within, at the rate at which events come."""
    if not e.forecast:
        return DASH
    if e.verdict.result == "held":
        return "reached"
    waits = [f.seconds for f in e.forecast if f.seconds is not None]
    if len(waits) < len(e.forecast):
        return "no events come"
    longest = max(waits)
    if not longest:
        return "due"
    remaining = e.remaining or 0.0
    run = {State.BASELINE: e.phases.duration, State.RUNNING: remaining}.get(e.state, 0.0)
    enough = "" if longest <= run else ", longer than the run"
    return f"{duration(longest)} more{enough}"


def phases(e: ExperimentSummary) -> list[PhaseBar]:
    """Return the phases as parts of one bar, and how much of each is over."""
    lengths = {
        State.BASELINE: e.phases.baseline,
        State.RUNNING: e.phases.duration,
        State.RECOVERING: e.phases.recovery,
    }
    whole = sum(lengths.values()) or 1.0
    bars, begins, over = [], 0.0, e.state in lengths or e.state is State.DONE
    for state, length in lengths.items():
        width = length / whole * 100
        done = width if over else 0.0
        if state is e.state:
            done, over = width * (1 - (e.remaining or 0.0) / (length or 1.0)), False
        bars.append(PhaseBar(state, round(begins, 2), round(width, 2), round(max(done, 0.0), 2)))
        begins += width
    return bars
