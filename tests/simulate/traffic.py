"""Both cohorts' requests of one run, drawn at random: a cell for each, and where looks are."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from counterfault.proxy.analysis.comparison import Users
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.steady_state import Latency, Metric, Rate, SuccessRate
from counterfault.proxy.measurement.samples import (
    SHARE_COLUMNS,
    Counts,
    Pair,
    Sample,
)
from tests.simulate.crowds import (
    BROKEN_SHARE,
    BROKEN_TIMES,
    Crowd,
    Indexes,
    Numbers,
    Senders,
    present,
    senders,
    who,
)

# Lognormal latencies: 50 ms in the middle, the p99 3.2 times as long.
_MEDIAN, _SIGMA, _Z99 = 0.05, 0.5, 2.3263478740408408


@dataclass(frozen=True, slots=True)
class World:
    """What is measured, and how things are."""

    metric: Metric
    crowd: Crowd
    tolerances: float
    """By how many tolerances the experiment is worse; 1 is the boundary, 0 an A/A."""
    level: float = 0.01
    """Control's share of bad events, if no client is broken."""
    tail: bool = False
    """Only the slower half of requests becomes slower."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """One cohort's requests as they come.

    `cells` is replicate * width + cell; `ends` says how many there are until each look, `met` from
    how many users.
    """

    cells: Indexes
    ends: Indexes
    width: int
    met: Indexes

    def cumulative(self) -> Iterator[Counts]:
        """The counts at each look; the same array each time."""
        counts = np.zeros((REPLICATES, self.width))
        flat, size, start = counts.reshape(-1), counts.size, 0
        for end in self.ends.tolist():
            flat += np.bincount(self.cells[start:end], minlength=size)
            start = end
            yield counts


@dataclass(frozen=True, slots=True)
class Traffic:
    """Both cohorts' requests of one run."""

    control: Cohort
    experiment: Cohort

    def users(self) -> Iterator[Users]:
        """The users that were met until each look."""
        for c, e in zip(self.control.met.tolist(), self.experiment.met.tolist(), strict=True):
            yield Users(c, e)

    def pairs(self) -> Iterator[Pair]:
        for c, e in zip(self.control.cumulative(), self.experiment.cumulative(), strict=True):
            yield Pair(Sample(c), Sample(e))


def draw(rng: np.random.Generator, world: World, looks: Indexes) -> Traffic:
    """A run that is looked at after so many requests per cohort."""
    return Traffic(_cohort(rng, world, looks, 0.0), _cohort(rng, world, looks, world.tolerances))


def _cohort(rng: np.random.Generator, world: World, looks: Indexes, tolerances: float) -> Cohort:
    metric, crowd = world.metric, world.crowd
    is_rate = isinstance(metric.kind, Rate)
    drawn = senders(rng, crowd, BROKEN_TIMES if is_rate else 1.0) if crowd.users else None
    ends = _paced(rng, world, drawn, looks, tolerances) if is_rate else looks
    share = np.repeat(looks / looks[-1], np.diff(ends, prepend=0))
    users = who(rng, crowd, drawn, share) if drawn else None
    count = len(share)
    replicates = rng.integers(0, REPLICATES, count) if drawn is None else drawn.replicates[users]
    if isinstance(metric.kind, Latency):
        seconds = _log_seconds(rng, world, drawn, users, count)
        bounds, width = np.log(metric.kind.cells.bounds), metric.kind.cells.columns
        cells = np.searchsorted(bounds, _slowed(world, seconds, tolerances))
        return Cohort(replicates * width + cells, ends, width, _met(users, ends))
    bad = np.zeros(count, dtype=bool)
    if not is_rate:
        bad = rng.random(count) < _chances(rng, world, drawn, users, tolerances)
    return Cohort(replicates * SHARE_COLUMNS + bad, ends, SHARE_COLUMNS, _met(users, ends))


def _met(users: Indexes | None, ends: Indexes) -> Indexes:
    """How many users have sent a request until each look."""
    if users is None:
        return ends
    _, first = np.unique(users, return_index=True)
    return np.searchsorted(np.sort(first), ends)


def _paced(
    rng: np.random.Generator, world: World, drawn: Senders | None, looks: Indexes, tolerances: float
) -> Indexes:
    """Events until each look, which is at a time when 1 % of users are to have sent so many."""
    pace = np.diff(looks, prepend=0) * (1 - world.metric.tolerance.value * tolerances)
    if drawn is not None:
        pace = pace * drawn.reach[present(world.crowd, drawn.count, looks / looks[-1]) - 1]
    return np.cumsum(rng.poisson(pace))


def _chances(
    rng: np.random.Generator,
    world: World,
    drawn: Senders | None,
    users: Indexes | None,
    tolerances: float,
) -> Numbers | float:
    """How likely each request is bad."""
    crowd, usual = world.crowd, world.level
    mean = usual + crowd.broken * (BROKEN_SHARE - usual)
    spared = (1 - worse(world.metric, mean, tolerances)) / (1 - mean)
    if drawn is None or users is None:
        return 1 - (1 - usual) * spared
    chances = np.full(drawn.count, usual)
    if crowd.icc:
        spread = 1 / crowd.icc - 1
        chances = rng.beta(usual * spread, (1 - usual) * spread, drawn.count)
    chances = np.where(drawn.broken, BROKEN_SHARE, chances)
    found: Numbers = (1 - (1 - chances) * spared)[users]
    return found


def worse(metric: Metric, bad: float, tolerances: float) -> float:
    """The share of bad events that is so many tolerances worse."""
    allowed = metric.tolerance.value * tolerances
    if not metric.tolerance.relative:
        return bad + allowed
    if isinstance(metric.kind, SuccessRate):
        return 1 - (1 - bad) * (1 - allowed)
    return bad * (1 + allowed)


def _log_seconds(
    rng: np.random.Generator,
    world: World,
    drawn: Senders | None,
    users: Indexes | None,
    count: int,
) -> Numbers:
    crowd = world.crowd
    found = rng.standard_normal(count)
    if drawn is not None and users is not None:
        own = sqrt(crowd.icc) * rng.standard_normal(drawn.count)
        own += np.where(drawn.broken, log(BROKEN_TIMES) / _SIGMA, 0.0)
        found = own[users] + sqrt(1 - crowd.icc) * found
    scaled: Numbers = log(_MEDIAN) + _SIGMA * found
    return scaled


def deviate(world: World, normal: float) -> float:
    """The experiment's normal score at the boundary that belongs to a normal score of control."""
    boundary = log(_MEDIAN) + _SIGMA * normal + log(1 + world.metric.tolerance.value)
    slower = log(1 + world.metric.tolerance.value * world.tolerances)
    if not world.tail:
        return (boundary - slower - log(_MEDIAN)) / _SIGMA
    return (boundary - log(_MEDIAN)) / (_SIGMA + slower / _Z99)


def _slowed(world: World, seconds: Numbers, tolerances: float) -> Numbers:
    """Logarithms of the seconds that it takes with the effect."""
    slower = log(1 + world.metric.tolerance.value * tolerances)
    if not world.tail:
        return seconds + slower
    middle = log(_MEDIAN)
    return middle + (seconds - middle) * (1 + slower / (_SIGMA * _Z99))
