"""`make simulate`: does the verdict keep what it promises? Prints a table, writes a result.

Every run is drawn at random from a seed, and decided by the code that decides in production.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import inf
from multiprocessing import get_context
from pathlib import Path

from tests.bench.machine import described
from tests.simulate.cost import cost
from tests.simulate.outcome import Outcome, run
from tests.simulate.scenarios import SCENARIOS, Scenario
from tests.simulate.table import Row, render, row

_ROUND = 5
_RESULTS = Path(__file__).with_name("results")


def main() -> None:
    options = _options()
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    chosen = [s for s in SCENARIOS if options.only in s.key]
    result = {
        "date": date,
        "machine": described(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("counterfault", "numpy")},
        },
        "settings": {"seed": options.seed},
        "cost": {name: found._asdict() for name, found in cost(options.seed).items()},
        "rows": _simulated(chosen, options),
    }
    print(render(result))
    if not options.no_result:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / f"{date}.json").write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="of each scenario")
    parser.add_argument("--minutes", type=float, default=inf, metavar="N", help="at most, about")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios that have it")
    parser.add_argument("--no-result", action="store_true", help="print the table only")
    options = parser.parse_args()
    if not any(options.only in s.key for s in SCENARIOS):
        known = "\n  ".join(s.key for s in SCENARIOS)
        parser.error(f"no scenario has {options.only!r} in its name; known:\n  {known}")
    return options


def _simulated(chosen: list[Scenario], options: argparse.Namespace) -> list[Row]:
    """Round by round, so that all scenarios have as many runs when time is up."""
    found: dict[str, list[Outcome]] = {scenario.key: [] for scenario in chosen}
    began = time.monotonic()
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for first in range(0, options.runs, _ROUND):
            numbers = range(first, min(first + _ROUND, options.runs))
            tasks = [(scenario, number) for scenario in chosen for number in numbers]
            outcomes = pool.imap(partial(_one, options.seed), tasks, chunksize=1)
            for (scenario, _), outcome in zip(tasks, outcomes, strict=True):
                found[scenario.key].append(outcome)
            minutes = (time.monotonic() - began) / 60
            print(f"{numbers[-1] + 1} runs of each in {minutes:.1f} minutes", file=sys.stderr)
            if minutes >= options.minutes:
                break
    return [row(scenario, found[scenario.key]) for scenario in chosen]


def _one(seed: int, task: tuple[Scenario, int]) -> Outcome:
    scenario, number = task
    return run(scenario, seed, number)


if __name__ == "__main__":
    main()
