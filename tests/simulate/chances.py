"""How sure a simulated share is, and how many requests a test that looks once would need."""

from collections.abc import Callable
from functools import lru_cache
from math import log, log1p
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.experiments.steady_state import Latency
from tests.simulate.traffic import World, deviate, worse

_NORMAL = NormalDist()
# A test at 5 %, one-sided, that four of five times finds the effect.
_ONCE = _NORMAL.inv_cdf(0.95) + _NORMAL.inv_cdf(0.8)
_HALVINGS = 50


def interval(hits: int, runs: int, alpha: float = 0.05) -> tuple[float, float]:
    """Clopper and Pearson's: at least 1 - alpha sure, whatever the true share."""
    low = 0.0 if hits == 0 else _where(lambda p: 1 - _at_most(hits - 1, runs, p), alpha / 2)
    high = 1.0 if hits == runs else 1 - _where(lambda q: _at_most(hits, runs, 1 - q), alpha / 2)
    return low, high


def at_least(hits: int, runs: int, p: float) -> float:
    """The chance of so many hits or more if the true share is p."""
    return 1 - _at_most(hits - 1, runs, p) if hits else 1.0


def binomial(trials: int, p: float) -> NDArray[np.float64]:
    """Return the chances of 0, 1, … hits in so many trials, shape (trials + 1,); 0 < p < 1."""
    k = np.arange(trials + 1)
    found: NDArray[np.float64] = np.exp(
        _ways(trials, trials) + k * log(p) + (trials - k) * log1p(-p)
    )
    return found


def _where(rising: Callable[[float], float], target: float) -> float:
    """Where a rising function of a share reaches a target."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _at_most(hits: int, runs: int, p: float) -> float:
    if p <= 0 or hits >= runs:
        return 1.0
    if p >= 1:
        return 0.0
    k = np.arange(hits + 1)
    terms = np.exp(_ways(hits, runs) + k * log(p) + (runs - k) * log1p(-p))
    return min(1.0, float(terms.sum()))


@lru_cache
def _ways(hits: int, runs: int) -> NDArray[np.float64]:
    """Logarithms of the numbers of ways to have 0, 1, … `hits` hits in so many runs."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, runs + 1)))])
    k = np.arange(hits + 1)
    found: NDArray[np.float64] = factorials[runs] - factorials[k] - factorials[runs - k]
    return found


def fixed(world: World) -> float:
    """Requests per cohort for one look, of a z-test against the boundary that knows the shares."""
    kind = world.metric.kind
    if isinstance(kind, Latency):
        # Of the experiment's requests, those above the boundary, where control's quantile is.
        share = 1 - _NORMAL.cdf(deviate(world, _NORMAL.inv_cdf(kind.quantile)))
        away = share - (1 - kind.quantile)
        variance = kind.quantile * (1 - kind.quantile) + share * (1 - share)
    else:
        control, bad = world.level, worse(world.metric, world.level, world.tolerances)
        away = bad - worse(world.metric, control, 1.0)
        variance = control * (1 - control) + bad * (1 - bad)
    return variance * (_ONCE / away) ** 2
