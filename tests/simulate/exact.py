"""The exact chance that a verdict is wrong, for so few requests that all outcomes can be counted.

Nothing is drawn: the probability of each pair of numbers of bad requests is carried from look to
look, less what has been decided. Requests are independent, and spread evenly over the replicates.
"""

from collections.abc import Callable, Sequence

import numpy as np

from counterfault.proxy.analysis.comparison import Comparison, Threshold, compare
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair, Sample
from tests.simulate.chances import binomial
from tests.simulate.crowds import Numbers

_COHORTS = Cohorts.model_validate({"experiment": "1%", "control": "1%"})
_THRESHOLD = Threshold.of(0.95, 1)
# Less probable outcomes are left out; all of them together change no digit that a test looks at.
_NEGLIGIBLE = 1e-8


def chance(
    metric: Metric,
    shares: tuple[float, float],
    looks: Sequence[int],
    decided: Callable[[Comparison], bool],
) -> float:
    """Return the chance that `decided` is true at any of the looks.

    Args:
        metric: A metric of shares.
        shares: The shares of bad requests in control and in the experiment.
        looks: After how many requests per cohort it is evaluated.
        decided: What must not be, or must be, said.
    """
    # `left[i, j]`: the chance of i and j bad requests, with nothing decided so far.
    left, sum_of_decided, before = np.ones((1, 1)), 0.0, 0
    for requests in looks:
        control, experiment = (binomial(requests - before, share) for share in shares)
        left = _spread(_spread(left, control).T, experiment).T
        for i, j in np.argwhere(left > _NEGLIGIBLE).tolist():
            pair = Pair(_sample(requests, i), _sample(requests, j))
            if decided(compare(metric, pair, _COHORTS, _THRESHOLD)):
                sum_of_decided += left[i, j]
                left[i, j] = 0.0
        before = requests
    return float(sum_of_decided)


def _spread(left: Numbers, more: Numbers) -> Numbers:
    """The chances by rows after so many more bad requests, which have the chances `more`."""
    found = np.zeros((len(left) + len(more) - 1, left.shape[1]))
    for bad, probability in enumerate(more):
        found[bad : bad + len(left)] += probability * left
    return found


def _sample(requests: int, bad: int) -> Sample:
    of_all, of_bad = _even(requests), _even(bad)
    return Sample(np.stack([of_all - of_bad, of_bad], axis=1))


def _even(count: int) -> Numbers:
    found = np.full(REPLICATES, float(count // REPLICATES))
    found[: count % REPLICATES] += 1
    return found
