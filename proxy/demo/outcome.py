"""How an act ended, judged from the API's account of its run."""

from dataclasses import dataclass
from typing import Any

from proxy.demo.acts import Act
from proxy.demo.compare import Comparison, Result, compare, conclude
from proxy.units import tolerance

type Seen = dict[str, Any]
"""An experiment as the API has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An act and what became of its hypothesis; `reason` if the run was stopped."""

    act: Act
    hypothesis: str
    comparisons: tuple[Comparison, ...]
    performed: int
    result: Result
    reason: str

    @property
    def as_foretold(self) -> bool:
        return self.result is self.act.foretold


def judge(act: Act, seen: Seen) -> Outcome:
    """The outcome of a run that is over; one that was stopped has not answered its question."""
    comparisons = tuple(_compared(m, seen["replicates"]) for m in seen["steady_state"])
    planned, performed = (sum(f[k] for f in seen["faults"]) for k in ("planned", "performed"))
    done = seen["state"] == "done"
    result = conclude(comparisons, planned, performed) if done else Result.INVALID
    return Outcome(act, seen["hypothesis"], comparisons, performed, result, seen["reason"])


def _compared(metric: Seen, replicates: Seen) -> Comparison:
    name, kind, text = metric["name"], metric["kind"], metric["tolerance"]
    cohorts = replicates[name]["running"]
    *limit, _, allowed = text.split()  # drop 1pp; over 300ms rise 2pp
    bad = f"{name}: {' '.join(limit) or 'failed'}"
    return compare(bad, kind, tolerance(allowed), cohorts["control"], cohorts["experiment"])
