"""The interim comparison of two cohorts: one look at the end of a run.

The difference of the shares of bad exchanges, with a standard error that knows that requests of
one user are alike: users are spread over replicates, and the replicates say how much a cohort's
share varies. It has no protection against peeking.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from proxy.units import Tolerance

LABEL = (
    "interim comparison: one look at the end, no protection against peeking;"
    " the sequential test replaces it"
)
CONFIDENCE = 0.95
# A run in which fewer of the planned faults happened has not tried what it was to try.
LEAST_DOSE = 0.8
# With fewer, some single users decide, and what replicates say of each other means little.
LEAST_CLUSTERS = 10
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

type Pairs = Sequence[tuple[int, int]]
"""Good and bad exchanges of each replicate."""


class Result(StrEnum):
    """What became of a hypothesis."""

    HELD = "held"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Sample:
    """One cohort's exchanges: how many, which share was bad, and how sure that is."""

    events: int
    bad: float
    variance: float
    clusters: float
    """How many replicates of equal size would tell as much."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric; `estimate` is by how much more of the experiment's exchanges were bad."""

    metric: str
    control: Sample
    experiment: Sample
    allowed: float
    estimate: float
    low: float
    high: float

    @property
    def result(self) -> Result:
        if min(self.control.clusters, self.experiment.clusters) < LEAST_CLUSTERS:
            return Result.INCONCLUSIVE
        if self.low > self.allowed:
            return Result.REFUTED
        return Result.HELD if self.high < self.allowed else Result.INCONCLUSIVE


def compare(
    metric: str, kind: str, tolerance: Tolerance, control: Pairs, experiment: Pairs
) -> Comparison:
    """Compare a `success_rate` or a `slow` metric."""
    c, e = sample(control), sample(experiment)
    match kind:
        case "success_rate":
            level = 1 - c.bad
        case "slow":
            level = c.bad
        case _:
            raise ValueError(f"the interim comparison knows success_rate and slow, not {kind}")
    allowed = tolerance.value * (level if tolerance.relative else 1)
    estimate = e.bad - c.bad
    margin = _student(c.clusters + e.clusters - 2) * (c.variance + e.variance) ** 0.5
    low, high = max(estimate - margin, -1.0), min(estimate + margin, 1.0)
    return Comparison(metric, c, e, allowed, estimate, low, high)


def sample(pairs: Pairs) -> Sample:
    """A cohort's share of bad exchanges with its variance, robust to users who differ."""
    counts: NDArray[np.float64] = np.array(pairs, dtype=float).reshape(-1, 2)
    bad, events = counts[:, 1], counts.sum(axis=1)
    total = events.sum()
    if not total:
        return Sample(0, 0.0, 1.0, 0.0)
    share = bad.sum() / total
    k = len(counts)
    between = k / max(k - 1, 1) * ((bad - share * events) ** 2).sum() / total**2
    # No bad exchange at all does not mean that there could be none, hence one of each (Laplace).
    expected = (bad.sum() + 1) / (total + 2)
    least = expected * (1 - expected) / total
    clusters = total**2 / (events**2).sum()
    return Sample(int(total), float(share), float(max(between, least)), float(clusters))


def conclude(comparisons: Iterable[Comparison], planned: int, performed: int) -> Result:
    """What all metrics together say of the hypothesis: each of them has to hold."""
    results = {comparison.result for comparison in comparisons}
    if not performed:
        return Result.INVALID
    if Result.REFUTED in results:
        return Result.REFUTED
    if results != {Result.HELD} or performed < LEAST_DOSE * planned:
        return Result.INCONCLUSIVE
    return Result.HELD


def _student(freedom: float) -> float:
    """The two-sided quantile of Student's t, by Cornish and Fisher's expansion."""
    nu = max(freedom, 1.0)
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return _Z + first / nu + second / nu**2
