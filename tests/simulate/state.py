"""The runs of a simulation so far, in a file to which each batch is appended.

So a simulation can be stopped at any time, even killed, and goes on where it was. The first line
says what the runs depend on; each other line is a batch of runs of one cell.
"""

import hashlib
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
# What decides, and what draws.
_SOURCES = (
    *(f"proxy/{room}" for room in ("analysis", "experiments", "measurement", "values")),
    "tests/simulate",
)


class StaleState(Exception):
    """The state file is of other sources, of another seed, or none at all; says what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What runs depend on."""

    seed: int
    sources: str
    """A digest of the code that decides and of the code that draws."""
    numpy: str
    commit: str
    """The commit of the checkout, with `+` if these sources are changed; `unknown` outside git."""

    @classmethod
    def here(cls, seed: int) -> Self:
        """Return the origin of runs that this checkout makes."""
        return cls(seed, _digest(), version("numpy"), _commit())

    def same_runs(self, other: "Origin") -> bool:
        """Whether both make the same runs: a commit that changed only other files is as good."""
        mine, others = ((o.seed, o.sources, o.numpy) for o in (self, other))
        return mine == others


class Batch(NamedTuple):
    """Consecutive runs of a cell."""

    cell: str
    first: int
    """The number of the first run."""
    seconds: float
    """The CPU time of all of them."""
    outcomes: Sequence[Sequence[int]]
    """The figures of each run, in the order of the fields of its outcome."""


class State:
    """The runs so far, by cell and number."""

    def __init__(self, path: Path | None, origin: Origin) -> None:
        """Begin without runs; `path` None: they are kept in memory only."""
        self.origin = origin
        self._path = path
        self._outcomes: defaultdict[str, dict[int, tuple[int, ...]]] = defaultdict(dict)
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @classmethod
    def opened(cls, path: Path, origin: Origin, anew: bool = False) -> Self:
        """Return the state of a file; begin one if there is none, or if `anew`.

        Raises StaleState if the file's runs are not those that this checkout would make.
        """
        state = cls(path, origin)
        if path.exists() and not anew:
            state._read(path)
            return state
        if path.exists():
            os.replace(path, path.with_suffix(path.suffix + ".old"))
        path.write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")
        return state

    def add(self, batch: Batch) -> None:
        """Keep a batch, in the file too."""
        self._take(batch)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(batch, separators=(",", ":")) + "\n")

    def runs(self, cell: str) -> int:
        """Return how many runs of a cell there are."""
        return len(self._outcomes[cell])

    def outcomes(self, cell: str) -> list[tuple[int, ...]]:
        """Return the outcomes of a cell's runs, by the number of the run."""
        return [outcome for _, outcome in sorted(self._outcomes[cell].items())]

    def missing(self, cell: str, runs: int) -> list[int]:
        """Return the numbers below `runs` of which there is no run yet."""
        return [number for number in range(runs) if number not in self._outcomes[cell]]

    def seconds(self, cell: str) -> float | None:
        """Return the CPU time of a run of a cell on average; None: there was no run yet."""
        return self._seconds[cell] / self.runs(cell) if self.runs(cell) else None

    def _take(self, batch: Batch) -> None:
        for number, outcome in enumerate(batch.outcomes, batch.first):
            self._outcomes[batch.cell][number] = tuple(outcome)
        self._seconds[batch.cell] += batch.seconds

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        whole, _, torn = text.rpartition("\n")
        first, *lines = whole.split("\n")
        found = _origin(path, first)
        if not self.origin.same_runs(found):
            raise StaleState(
                f"{path} has runs of commit {found.commit} and seed {found.seed}, which are not"
                f" those of commit {self.origin.commit} and seed {self.origin.seed}: go back there,"
                " or begin anew with --anew (the old file is kept as *.old)"
            )
        for line in lines:
            self._take(Batch(*json.loads(line)))
        if torn:  # the simulation was killed in the middle of a line
            path.write_text(f"{whole}\n", encoding="utf-8")


def _origin(path: Path, line: str) -> Origin:
    try:
        values: dict[str, Any] = json.loads(line)
        return Origin(**values)
    except (ValueError, TypeError) as error:
        raise StaleState(
            f"{path} is not a state file of make simulate: remove it, or begin anew with --anew"
        ) from error


def _digest() -> str:
    found = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.name.startswith("test_"):
                found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return commit + "+" * bool(_git("status", "--porcelain", "--", *_SOURCES))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
