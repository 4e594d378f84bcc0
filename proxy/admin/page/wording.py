"""Numbers as the page says them."""

from datetime import UTC, datetime
from typing import Any

from counterfault.proxy.values.units import percent

DASH = "\N{EN DASH}"


def seconds(value: float | None) -> str:
    """A latency: 1.23 s, 45.6 ms; a dash where there is none."""
    if value is None:
        return DASH
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def left(value: float) -> str:
    """A time that passes: 9 s, 1 min 05 s, 2 h 00 min, 3 days 4 h."""
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def many(value: int) -> str:
    """A count with narrow spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def share(part: float, whole: float) -> str:
    """98.7 %; a dash of nothing."""
    return f"{part / whole * 100:.3g} %" if whole else DASH


def effect(value: float | None, unit: str) -> str:
    """+1.2 pp, −20 %"""
    if value is None:
        return DASH
    return f"{value * 100:+.3g} {unit}".replace("-", "\N{MINUS SIGN}")


def utc(at: float) -> str:
    """As <time datetime> has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """For whom no script tells the time of his own zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M:%S UTC")


def sample_ratio(users: dict[str, Any]) -> str:
    """How the users met are divided, and how they should be."""
    control, experiment = users["control"], users["experiment"]
    if not control + experiment:
        return "nobody met yet"
    asked = users["expected_share"]
    rest = f", {percent(round(asked, 4))} expected" if asked is not None else ""
    return f"{share(experiment, control + experiment)} in experiment{rest}"


def until_verdict(e: dict[str, Any]) -> str:
    """How long until all metrics can be within, at the rate at which their events come."""
    if not e["forecast"]:
        return DASH
    if e["verdict"]["result"] == "held":
        return "reached"
    waits = [f["seconds"] for f in e["forecast"]]
    if None in waits:
        return "no events come"
    longest = max(waits)
    if not longest:
        return "due"
    phases, remaining = e["phases"], e["remaining"] or 0.0
    run = {"baseline": phases["duration"], "running": remaining}.get(e["state"], 0.0)
    enough = "" if longest <= run else ", longer than the run"
    return f"{left(longest)} more{enough}"


def phases(e: dict[str, Any]) -> list[dict[str, Any]]:
    """Each phase with its place in the whole and how much of it is over, all of 100."""
    lengths = {
        "baseline": e["phases"]["baseline"],
        "running": e["phases"]["duration"],
        "recovering": e["phases"]["recovery"],
    }
    whole = sum(lengths.values()) or 1.0
    found, begins, over = [], 0.0, e["state"] in lengths or e["state"] == "done"
    for name, length in lengths.items():
        width = length / whole * 100
        done = width if over else 0.0
        if name == e["state"]:
            done, over = width * (1 - (e["remaining"] or 0.0) / (length or 1.0)), False
        found.append({"name": name, "x": round(begins, 2), "width": round(width, 2)})
        found[-1]["done"] = round(max(done, 0.0), 2)
        begins += width
    return found
