"""What one evaluation of one metric costs, in CPU time: others may be busy."""

import statistics
import time

import numpy as np

from proxy.analysis.compare import compare
from proxy.sample import Pair, Sample
from tests.simulate.outcome import COHORTS, THRESHOLD
from tests.simulate.scenarios import APART, KINDS
from tests.simulate.traffic import World, draw

_REQUESTS = 10_000
_TIMES, _EACH = 41, 50


def cost(seed: int) -> dict[str, float]:
    """Microseconds for each kind of metric: the median of many measurements."""
    found = {}
    for name, (metric, level) in KINDS.items():
        world = World(metric, APART, 0.5, level)
        traffic = draw(np.random.default_rng(seed), world, np.array([_REQUESTS]))
        (seen,) = traffic.pairs()
        control, experiment = seen.control.counts.copy(), seen.experiment.counts.copy()
        times = []
        for _ in range(_TIMES):
            began = time.process_time()
            for _ in range(_EACH):
                # New samples each time: they keep what has been found out about them.
                compare(metric, Pair(Sample(control), Sample(experiment)), COHORTS, THRESHOLD)
            times.append((time.process_time() - began) / _EACH * 1e6)
        found[name] = round(statistics.median(times), 1)
    return found
