"""Writes the newest committed result of `make simulate` into README.md: `make generate`."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from counterfault.proxy.analysis.comparison import LEAST_EVENTS
from docs.marked import replace
from tests.simulate.met import ENOUGH_RUNS, MET
from tests.simulate.table import COST_TARGET, USUAL, Row, added, met, percent

TREE = Path(__file__).parents[2]
PAGES = (TREE / "README.md",)
RESULTS = Path(__file__).with_name("results")
_SHORT_COMMIT = 12

type Result = dict[str, Any]


def newest() -> Result:
    """Return the newest result; their names are their dates."""
    path = max(RESULTS.glob("*.json"))
    found: Result = json.loads(path.read_text(encoding="utf-8"))
    return found


def table() -> str:
    """Return Markdown: what was measured where, and a row for each group of cells."""
    return text(newest())


def text(result: Result) -> str:
    """Return the Markdown of a result."""
    rows: list[Row] = result["rows"]
    parts = (_origin(result), _false_alarms(rows), _harm(rows), _costs(result), _hostile(rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def written(page: str) -> str:
    """Return the page with the tables of the newest result."""
    return replace(page, "simulation", table())


def _origin(result: Result) -> str:
    machine, settings = result["machine"], result["settings"]
    commit = settings.get("commit")
    code = f"commit {commit[:_SHORT_COMMIT]}" if commit else "before results named their commit"
    runs = {row["runs"] for row in result["rows"]}
    each = f"{min(runs):,}" if len(runs) == 1 else f"{min(runs):,} to {max(runs):,}"
    where = f"{machine['cores']} cores of {_plain(machine['cpu'])}"
    return (
        f"Simulated on {result['date'][:10]}, {code}, seed {settings['seed']}, on {where}:"
        f" {len(result['rows'])} cells of {each} runs. A cell is met with {ENOUGH_RUNS:,} runs or"
        " more whose share is not above its limit at the 1 % level; in brackets 95 % intervals."
    )


def _plain(cpu: str) -> str:
    return cpu.replace("(R)", "").replace("Processor ", "")


def _false_alarms(rows: Sequence[Row]) -> str:
    """A row for each crowd, over all kinds of metrics; and one over all crowds."""
    lines = []
    for group, name, title in (
        ("boundary", "refuted", "the effect is just the tolerance: `refuted`"),
        ("A/A", "differ", "no effect: said to differ (baseline)"),
    ):
        of_group = [row for row in rows if row["group"] == group]
        crowds = dict.fromkeys(row["crowd"] for row in of_group)
        for number, crowd in enumerate(crowds):
            part = [row for row in of_group if row["crowd"] == crowd]
            start = f"… {crowd.removeprefix('… ')}" if number else f"{title}, {crowd}"
            peers = ["z_test", "threshold"] if group == "boundary" else list(_PEERS)
            lines.append(_line(start, name, part, peers))
        other = {"boundary": "held", "A/A": "refuted"}[group]
        if of_group:
            lines.append(_line(f"… `{other}`, all of them together", other, of_group, ()))
    if not lines:
        return ""
    head = "| false alarms, at most 5 % wanted | counterfault | runs | cells met | z-test"
    return "\n".join([f"{head} | Mann–Whitney | threshold |", "|---" * 7 + "|", *lines])


_PEERS = ("z_test", "mann_whitney", "threshold")


def _line(title: str, name: str, rows: Sequence[Row], peers: Iterable[str]) -> str:
    share = added([row["shares"][name] for row in rows])
    beside = [
        f"{100 * added([row['shares'][peer] for row in rows])['share']:.0f} %"
        if peer in peers
        else ""
        for peer in _PEERS
    ]
    cells = [title, _share(share), f"{share['runs']:,}", _met(rows), *beside]
    return f"| {' | '.join(cells)} |"


def _share(share: Row) -> str:
    return percent(share).replace("%", " %")


def _met(rows: Sequence[Row]) -> str:
    return f"{sum(met(row) == MET for row in rows)} of {len(rows)}"


def _harm(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        if row["group"] == "harm":
            once = f"{row['fixed']:,}" if row["fixed"] >= LEAST_EVENTS else ""
            figures = f"{_median(row, 'refuted')} | ≤ {row['target']:,} | {once} | {met(row)}"
            lines.append(f"| {row['name']} | {figures} |")
        elif row["group"] == "no effect":
            lines.append(f"| {row['name']}: no effect, until held | {_median(row, 'held')} | | | |")
    if not lines:
        return ""
    head = "| requests per cohort until harm is found, in half of the runs | counterfault | target"
    return "\n".join([f"{head} | one look, 80 % power | |", "|---" * 5 + "|", *lines])


def _median(row: Row, name: str) -> str:
    value = row["shares"][name]["median"]
    return "never" if value is None else f"{value:,.0f}"


def _costs(result: Result) -> str:
    costs = [took["median"] for took in result["cost"].values()]
    if not costs:
        return ""
    return (
        f"A comparison took {min(costs):.0f} to {max(costs):.0f} µs of CPU,"
        f" by the kind of metric ({COST_TARGET:.0f} were allowed)."
    )


def _hostile(rows: Sequence[Row]) -> str:
    """A row for each group of cells of adversarial traffic, with its worst cell."""
    found = [row for row in rows if row["group"] not in USUAL]
    if not found:
        return (
            "This result is older than the cells of adversarial traffic (few users, concentrated"
            " harm, bursts, incidents, time-outs, narrow latencies, shared queues), of which"
            " `make simulate` says how often the verdict is wrong."
        )
    lines = []
    for group, each in groupby(found, key=lambda row: str(row["group"])):
        cells = list(each)
        worst, name, share = max(
            ((row, name, row["shares"][name]) for row in cells for name in row["wrong"]),
            key=lambda found: found[2]["share"],
        )
        said = f"`{name}` {_share(share)}: {worst['name']}"
        limit = f"{100 * worst['wrong'][name]:.0f} %"
        lines.append(f"| {group} | {_met(cells)} | {said} | {limit} | {share['runs']:,} |")
    head = "| adversarial traffic | cells met | what is said wrongly most often | at most | runs |"
    return "\n".join([head, "|---" * 5 + "|", *lines])


def main() -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
