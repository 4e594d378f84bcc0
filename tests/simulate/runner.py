"""Makes the runs of all cells, on several cores, until each has as many as it needs."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from functools import partial
from math import inf
from multiprocessing import get_context
from typing import NamedTuple

from tests.simulate import adversity, outcome
from tests.simulate.adversity import Adversity, Ending
from tests.simulate.hostile import HOSTILE
from tests.simulate.met import CLOSE_RUNS, ENOUGH_RUNS, needed_runs
from tests.simulate.outcome import Outcome
from tests.simulate.scenarios import SCENARIOS, Scenario
from tests.simulate.state import Batch, State
from tests.simulate.table import said_of

type Cell = Scenario | Adversity
CELLS: tuple[Cell, ...] = (*SCENARIOS, *HOSTILE)
_BY_KEY = {cell.key: cell for cell in CELLS}

# All cells get as many runs before any gets more, so that a stopped simulation says of all as much.
_LEVELS = (10, 50, 200, 500, ENOUGH_RUNS, CLOSE_RUNS)
# A batch is short enough that little is lost when the simulation is stopped.
_BATCH_SECONDS = 2.0
_FIRST_BATCH = 5
_MOST = 100


class Task(NamedTuple):
    """Consecutive runs of a cell that are still to be made."""

    cell: str
    first: int
    runs: int


def played(cell: Cell, seed: int, number: int) -> tuple[int, ...]:
    """Return the figures of one run, which are always the same for the same seed and number."""
    match cell:
        case Scenario():
            return astuple(outcome.run(cell, seed, number))
        case Adversity():
            return astuple(adversity.run(cell, seed, number))


def figures(cell: Cell) -> tuple[str, ...]:
    """Return the names of the figures of a cell's runs."""
    kind = Outcome if isinstance(cell, Scenario) else Ending
    return tuple(field.name for field in fields(kind))


def counted(cell: Cell, outcomes: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """Return each figure of a cell's runs by its name."""
    names = figures(cell)
    return {name: [o[i] for o in outcomes] for i, name in enumerate(names)}


def target(cell: Cell, state: State, most: int) -> int:
    """Return how many runs a cell needs, at most `most`."""
    outcomes = state.outcomes(cell.key)
    return min(most, needed_runs(said_of(cell, counted(cell, outcomes))))


def is_done(cells: Iterable[Cell], state: State, most: int) -> bool:
    """Whether all cells have as many runs as they need."""
    return all(not state.missing(cell.key, target(cell, state, most)) for cell in cells)


def simulate(
    cells: Sequence[Cell],
    state: State,
    most: int,
    jobs: int,
    minutes: float,
    report: Callable[[str], None],
) -> None:
    """Make the runs that are missing and add them to the state.

    Args:
        cells: The cells to simulate.
        state: The runs so far.
        most: The runs that a cell gets at most.
        jobs: The number of processes.
        minutes: After this time no batch begins any more.
        report: Is called with a line after each level of runs.
    """
    began = time.monotonic()
    with _mapper(jobs) as mapped:
        for level in _LEVELS:
            tasks = [task for cell in cells for task in _tasks(cell, state, min(level, most))]
            for batch in mapped(partial(_batch, state.origin.seed), tasks):
                state.add(batch)
                if time.monotonic() - began > 60 * minutes:
                    report("time is up")
                    return
            spent = (time.monotonic() - began) / 60
            report(f"{min(level, most)} runs of each that needs them, after {spent:.1f} minutes")


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable[..., Iterable[Batch]]]:
    """A function that maps tasks to batches, in any order; one job is done in this process."""
    if jobs == 1:
        yield map
        return
    with get_context("spawn").Pool(jobs, _ignore_interrupts) as pool:
        yield pool.imap_unordered


def estimate(cells: Iterable[Cell], state: State, runs: int = 3) -> dict[str, float]:
    """Return the seconds of CPU time of a run of each cell; cells without runs get some."""
    for cell in cells:
        if state.seconds(cell.key) is None:
            played(cell, state.origin.seed, 0)  # imports and caches cost only the first run
            state.add(_batch(state.origin.seed, Task(cell.key, 0, runs)))
    return {cell.key: state.seconds(cell.key) or inf for cell in cells}


def _tasks(cell: Cell, state: State, level: int) -> Iterable[Task]:
    numbers = state.missing(cell.key, min(level, target(cell, state, level)))
    seconds = state.seconds(cell.key)
    size = _FIRST_BATCH if not seconds else round(_BATCH_SECONDS / seconds)
    size = min(max(size, 1), _MOST)
    while numbers:
        # Consecutive numbers only: those between them are done.
        count = next(
            (i for i in range(1, min(size, len(numbers))) if numbers[i] != numbers[0] + i),
            min(size, len(numbers)),
        )
        yield Task(cell.key, numbers[0], count)
        numbers = numbers[count:]


def _batch(seed: int, task: Task) -> Batch:
    cell, began = _BY_KEY[task.cell], time.process_time()
    outcomes = [played(cell, seed, task.first + i) for i in range(task.runs)]
    return Batch(task.cell, task.first, round(time.process_time() - began, 4), outcomes)


def _ignore_interrupts() -> None:
    """An interrupt from the keyboard goes to all processes; the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
