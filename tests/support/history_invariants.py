"""What a history may say, whatever moment its writer was killed at."""

from itertools import pairwise
from pathlib import Path

from counterfault.proxy.experiments.lifecycle import NEXT, OVER, State
from counterfault.proxy.runs.history import History
from counterfault.proxy.runs.record import recorded

type Runs = dict[tuple[str, int], str]
"""States by experiment and number."""

VERDICTS = ("held", "refuted", "inconclusive", "invalid")


def states_after(state: State) -> set[State]:
    """Where a run may be found next: phases without a length pass unseen."""
    found: set[State] = set()
    new = {state}
    while new:
        new = {b for (a, _), b in NEXT.items() if a in new} - found
        found |= new
    return found


def checked_history(state_dir: Path, before: Runs) -> Runs:
    """Every run's state; fails where a state, a step or a return from the dead is not legal."""
    history = History(state_dir, reading=True)
    found = {}
    for (name, number), run in history.load().items():
        record = recorded(history, name, number)
        states = [event.state for event in record.timeline]
        assert all(b in states_after(a) for a, b in pairwise([State.PENDING, *states])), states
        assert states[-1] == run.state
        assert record.verdict.result in VERDICTS
        assert all(point.epoch.startswith(f"{number}.") for point in record.points)
        was = before.get((name, number))
        assert was not in OVER or run.state == was
        found[name, number] = str(run.state)
    assert before.keys() <= found.keys()
    history.close()
    return found
