"""When a cell of the table is met: enough runs, and nothing wrong said too often."""

from collections.abc import Iterable
from typing import NamedTuple

from tests.simulate.chances import at_least

ENOUGH_RUNS = 1000
CLOSE_RUNS = 5000
"""For shares close to their limit, of which 1,000 runs say too little."""
# Close: within a fifth of the limit, which is 4 to 6 % of runs for a limit of 5 %.
_CLOSE, _ROUNDING = 0.2, 1e-9
# A simulated share that would be so unlikely at the limit is above it; else it is chance.
_UNLIKELY = 0.01

MET, NOT_MET, NOT_ENOUGH = "met", "not met", "not enough runs"


class Said(NamedTuple):
    """In how many of the runs something was said, and the share in which it may be."""

    hits: int
    runs: int
    limit: float

    @property
    def is_close(self) -> bool:
        """Whether the share lies so close to its limit that many more runs are needed."""
        if not (self.runs and self.limit):
            return False
        return abs(self.hits / self.runs / self.limit - 1) <= _CLOSE + _ROUNDING

    @property
    def is_sound(self) -> bool:
        """Whether the share may be at most its limit: what is seen is not unlikely then."""
        return at_least(self.hits, self.runs, self.limit) > _UNLIKELY


def needed_runs(said: Iterable[Said]) -> int:
    """Return how many runs a cell needs, after what its runs so far have said."""
    close = any(each.is_close for each in said if each.runs >= ENOUGH_RUNS)
    return CLOSE_RUNS if close else ENOUGH_RUNS


def verdict(runs: int, said: Iterable[Said], in_time: bool = True) -> str:
    """Return MET, NOT_MET or NOT_ENOUGH.

    Args:
        runs: The runs of the cell.
        said: What would be wrong to say too often.
        in_time: Whether harm is found as soon as promised.
    """
    said = list(said)
    if not all(each.is_sound for each in said):
        return NOT_MET
    if runs < needed_runs(said):
        return NOT_ENOUGH
    return MET if in_time else NOT_MET
