"""`make simulate`: does the verdict keep what it promises? Prints a table, writes a result.

Every run is drawn at random from a seed, and decided by the code that decides in production. Runs
are kept in a state file: stopped at any time, the same command goes on where it was. A result is
written once each cell has its runs.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from tests.bench.machine import described
from tests.simulate.cost import cost
from tests.simulate.met import CLOSE_RUNS, ENOUGH_RUNS
from tests.simulate.runner import CELLS, Cell, counted, estimate, is_done, simulate
from tests.simulate.state import Origin, StaleState, State
from tests.simulate.table import render, row

_RESULTS = Path(__file__).with_name("results")
_STATE = Path(__file__).with_name("state.jsonl")
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options, parser = _options(arguments)
    chosen = [cell for cell in CELLS if options.only in cell.key]
    origin = Origin.here(options.seed)
    if options.estimate:
        print(_estimated(chosen, State(None, origin), options.jobs))
        return 0
    try:
        state = State.opened(options.state, origin, options.anew)
    except StaleState as stale:
        parser.error(str(stale))
    _tell(f"commit {origin.commit}, seed {origin.seed}, {len(chosen)} cells, {options.jobs} jobs")
    code = 0
    try:
        simulate(chosen, state, options.runs, options.jobs, options.minutes, _tell)
    except KeyboardInterrupt:
        _tell(f"interrupted; the runs so far are in {options.state}")
        code = _INTERRUPTED
    result = _result(chosen, state, options)
    print(render(result))
    if options.result or _is_full(options, chosen, state):
        _RESULTS.mkdir(exist_ok=True)
        path = _RESULTS / f"{result['date']}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _tell(f"written: {path}")
    return code


def _options(
    arguments: Sequence[str] | None,
) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    add = parser.add_argument
    add("--only", default="", metavar="TEXT", help="cells whose name has it")
    add("--minutes", type=float, default=inf, metavar="N", help="stop after about N minutes")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes")
    add("--runs", type=int, default=CLOSE_RUNS, metavar="N", help="of a cell at most")
    add("--seed", type=int, default=1, metavar="N")
    add("--state", type=Path, default=_STATE, metavar="FILE", help="where runs are kept")
    add("--anew", action="store_true", help="begin anew, whatever the state file has")
    add("--estimate", action="store_true", help="print what all runs would take, and end")
    add("--result", action="store_true", help="write a result though runs are missing")
    options = parser.parse_args(arguments)
    if not any(options.only in cell.key for cell in CELLS):
        known = "\n  ".join(cell.key for cell in CELLS)
        parser.error(f"no cell has {options.only!r} in its name; known:\n  {known}")
    return options, parser


def _is_full(options: argparse.Namespace, chosen: list[Cell], state: State) -> bool:
    return not options.only and options.runs >= CLOSE_RUNS and is_done(chosen, state, options.runs)


def _result(chosen: list[Cell], state: State, options: argparse.Namespace) -> dict[str, Any]:
    origin = state.origin
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        "machine": described(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("counterfault", "numpy")},
        },
        "settings": {"seed": origin.seed, "commit": origin.commit, "sources": origin.sources},
        # It takes seconds to measure, which a look at few cells is not worth.
        "cost": {}
        if options.only
        else {name: found._asdict() for name, found in cost(options.seed).items()},
        "rows": [
            row(cell, counted(cell, state.outcomes(cell.key)))
            for cell in chosen
            if state.runs(cell.key)
        ],
    }


def _estimated(chosen: list[Cell], state: State, jobs: int) -> str:
    seconds = estimate(chosen, state)
    lines = [f"{'':<84} milliseconds of CPU per run"]
    lines += [f"{key:<84} {1000 * each:>8.0f}" for key, each in seconds.items()]
    total = ENOUGH_RUNS * sum(seconds.values())
    more = (CLOSE_RUNS - ENOUGH_RUNS) * sum(seconds.values()) / len(seconds)
    lines += [
        "",
        f"{len(seconds)} cells of {ENOUGH_RUNS:,} runs: {total / jobs / 60:.0f} minutes on"
        f" {jobs} free cores; each cell that needs {CLOSE_RUNS:,}: {more / jobs / 60:.1f} more",
    ]
    return "\n".join(lines)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
