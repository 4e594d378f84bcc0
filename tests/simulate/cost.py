"""What one evaluation of one metric costs, in CPU time: others may be busy."""

import statistics
import time
from typing import NamedTuple

import numpy as np

from counterfault.proxy.analysis.comparison import compare
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Counts, Pair, Sample
from tests.simulate.outcome import COHORTS, THRESHOLD
from tests.simulate.scenarios import APART, KINDS
from tests.simulate.traffic import World, draw

_REQUESTS = 10_000
_TIMES, _EACH = 201, 50


class Spread(NamedTuple):
    """Of one figure, in microseconds."""

    median: float
    least: float
    most: float


def cost(seed: int) -> dict[str, Spread]:
    """Microseconds for each kind of metric: the median of many measurements, and their range.

    In turns: a machine that others use too is slower at times, which should hit all of them.
    """
    drawn = {name: _drawn(seed, metric, level) for name, (metric, level) in KINDS.items()}
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(_TIMES):
        for name, (metric, _level) in KINDS.items():
            times[name].append(_timed(metric, *drawn[name]))
    return {
        name: Spread(*(round(x, 1) for x in (statistics.median(each), min(each), max(each))))
        for name, each in times.items()
    }


def _drawn(seed: int, metric: Metric, level: float) -> tuple[Counts, Counts]:
    world = World(metric, APART, 0.5, level)
    (seen,) = draw(np.random.default_rng(seed), world, np.array([_REQUESTS])).pairs()
    return seen.control.counts.copy(), seen.experiment.counts.copy()


def _timed(metric: Metric, control: Counts, experiment: Counts) -> float:
    began = time.process_time()
    for _ in range(_EACH):
        # New samples each time: they keep what has been found out about them.
        compare(metric, Pair(Sample(control), Sample(experiment)), COHORTS, THRESHOLD)
    return (time.process_time() - began) / _EACH * 1e6
