"""Samples for tests: drawn at random, or any at all."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from counterfault.proxy.analysis.comparison import Comparison, Threshold, compare
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import SHARE_COLUMNS, Pair, Sample, columns_for

EVEN = Cohorts.model_validate({"experiment": "1%", "control": "1%"})
ONE = Threshold.of(0.95, 1)


def metric(**kind: dict[str, Any]) -> Metric:
    """`metric(success_rate={"drop": "0.5pp"})`"""
    return Metric.model_validate({"name": "it", "at": "inbound", **kind})


KINDS = {
    "success_rate, absolute": metric(success_rate={"drop": "0.5pp"}),
    "success_rate, relative": metric(success_rate={"drop": "1%"}),
    "slow, absolute": metric(slow={"over": "300ms", "rise": "1pp"}),
    "slow, relative": metric(slow={"over": "300ms", "rise": "20%"}),
    "latency p50": metric(latency={"quantile": 0.5, "rise": "10%"}),
    "latency p99": metric(latency={"quantile": 0.99, "rise": "20%"}),
    "rate": metric(rate={"drop": "5%"}),
}
SHARES = [name for name in KINDS if not name.startswith(("latency", "rate"))]
P99_COLUMNS = columns_for(KINDS["latency p99"])
LATENCIES = [name for name in KINDS if name.startswith("latency")]


def share(events: int, bad: int) -> Sample:
    """Events, and as many bad ones, spread evenly over the replicates."""
    of_all, of_bad = _even(events), _even(bad)
    return Sample(np.stack([of_all - of_bad, of_bad], axis=1))


def cells(per_cell: dict[int, int], columns: int = P99_COLUMNS) -> Sample:
    """Latencies, as many in each cell, spread evenly; by default, for a tolerance of 20 %."""
    found = Sample.empty(columns)
    for cell, count in per_cell.items():
        found.counts[:, cell] = _even(count)
    return found


def _even(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A total over the replicates; which of them have one more depends on the total."""
    found = np.full(REPLICATES, count // REPLICATES, dtype=float)
    found[: count % REPLICATES] += 1
    return found


def drawn(name: str, seed: int, events: int = 5000, effect: float = 1.0) -> Pair:
    """Both cohorts of a metric of KINDS at random; `effect`: in tolerances."""
    from tests.simulate.scenarios import APART
    from tests.simulate.traffic import World, draw

    world = World(KINDS[name], APART, effect, 0.03)
    (pair,) = draw(np.random.default_rng(seed), world, np.array([events])).pairs()
    return Pair(Sample(pair.control.counts.copy()), Sample(pair.experiment.counts.copy()))


def compared(name: str, pair: Pair) -> Comparison:
    return compare(KINDS[name], pair, EVEN, ONE)


def width(of: Metric) -> int:
    return columns_for(of)


@st.composite
def samples(draw: st.DrawFn, columns: int = SHARE_COLUMNS, most: int = 10**12) -> Sample:
    """Any counts: of few replicates or all, in few cells or all, tiny and huge ones."""
    found = Sample.empty(columns)
    scale = draw(st.sampled_from([1, 3, 100, 10**6, most]))
    kinds = st.sampled_from([0, 1, scale // 2, scale]) | st.integers(0, scale)
    if draw(st.booleans()):
        values = draw(st.lists(kinds, min_size=1, max_size=8))
        found.counts[:] = np.resize(np.array(values, dtype=float), found.counts.shape)
    places = st.tuples(st.integers(0, REPLICATES - 1), st.integers(0, columns - 1), kinds)
    for row, column, value in draw(st.lists(places, max_size=12)):
        found.counts[row, column] = value
    return found


@st.composite
def pairs(draw: st.DrawFn, columns: int = SHARE_COLUMNS) -> Pair:
    return Pair(draw(samples(columns)), draw(samples(columns)))
