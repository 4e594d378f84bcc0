"""A supervisor that goes through its runs as fast as it can, and is killed at any moment.

As a program: `killed.py DIRECTORY KILLS SEED`; prints how many runs there were.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from counterfault.proxy.experiments.lifecycle import OVER, Epoch
from counterfault.proxy.measurement.keys import SteadyKey
from counterfault.proxy.runs.history import HistoryError
from tests.support.history_invariants import Runs, checked_history
from tests.support.supervisor_world import SLOW, World

_PHASES = {"baseline": "2s", "duration": "4s", "recovery": "2s"}


def _live(directory: Path, first: int) -> None:
    """Run after run, every other one stopped by an operator; never ends."""
    world = World(directory)
    world.write(SLOW | _PHASES | {"run": first})
    world.start()
    for number in range(first, 1_000_000):
        world.write(SLOW | _PHASES | {"run": number})
        asyncio.run(world.supervisor.reload())
        for second in range(9):
            epoch = world.supervisor.registry.runs["slow"].epoch
            for replicate in range(64):
                key = SteadyKey("slow", Epoch(epoch), "success", "control", replicate, "good")
                world.count(key, second)
            world.pass_time(1)
            if second == number % 16:
                asyncio.run(world.supervisor.stop("slow"))


def _killed(directory: Path, first: int, seconds: float) -> None:
    child = os.fork()
    if not child:
        _live(directory, first)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main() -> None:
    directory, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    runs: Runs = {}
    for _ in range(kills):
        first = 1 + max((number for _, number in runs), default=0)
        _killed(directory, first, draw.uniform(0.05, 0.4))
        try:
            runs = checked_history(directory / "state", runs)
        except HistoryError:
            assert not runs  # killed before there was any
    world = World(directory)
    world.write(SLOW | {"state": "paused", "run": 1_000_000})
    world.start().registry.store.close()
    runs = checked_history(directory / "state", runs)
    assert set(runs.values()) <= set(OVER), runs
    print(len(runs))


if __name__ == "__main__":
    main()
