"""Draws the requests of both cohorts of a run, as clients see them; nothing is the product's."""

from dataclasses import dataclass
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from tests.simulate.conditions import Conditions, Latencies, Queue, Retries
from tests.simulate.crowds import Indexes, Numbers

type Flags = NDArray[np.bool_]

_SECONDS = 0.05
_RESET_SECONDS = 0.001
_BURSTS = 6
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one cohort, in any order; arrays of shape (requests,)."""

    begun: Numbers
    """When each began, in seconds since the faults began."""
    seconds: Numbers
    """How long each took until its client had an answer or an error, or gave up."""
    failed: Flags
    users: Indexes
    """The user of each, from 0 to below `count`."""
    count: int
    """How many users the cohort has, whether they send anything or not."""


@dataclass(frozen=True, slots=True)
class _Course:
    """What both cohorts go through, second by second of a run, and one place of the latencies."""

    seconds: Indexes
    load: Numbers
    incidents: Numbers
    drift: Numbers
    octave: float
    bot_in_experiment: bool


def draw(rng: np.random.Generator, conditions: Conditions) -> tuple[Requests, Requests]:
    """Draw the requests of control and of the experiment."""
    if conditions.queue is not None:
        return _queued(rng, conditions, conditions.queue)
    course = _course(rng, conditions)
    return _cohort(rng, conditions, course, False), _cohort(rng, conditions, course, True)


def _course(rng: np.random.Generator, c: Conditions) -> _Course:
    seconds = np.arange(-c.baseline, c.seconds)
    part = (seconds + c.baseline) / len(seconds)
    load = c.load.ramp**part
    if c.load.burst > 1:
        for begin in rng.integers(0, len(seconds), rng.poisson(_BURSTS)):
            load[begin : begin + rng.integers(2, 15)] *= c.load.burst
    incidents = np.zeros(len(seconds))
    if c.incidents is not None:
        on = False
        for i, chance in enumerate(rng.random(len(seconds))):
            on = chance < 1 / c.incidents.every if not on else chance >= 1 / c.incidents.lasts
            incidents[i] = c.incidents.errors * on
    # On average over the requests there are as many failures as without drift.
    drift = 1 + (c.drift - 1) * part
    drift *= load.sum() / (drift * load).sum()
    load *= len(seconds) / load.sum()
    return _Course(seconds, load, incidents, drift, rng.random(), rng.random() < 0.5)


def _cohort(rng: np.random.Generator, c: Conditions, course: _Course, experiment: bool) -> Requests:
    count = max(int(rng.poisson(c.users.count)), 1)
    reach, own, hit = _drawn_users(rng, c, count, experiment == course.bot_in_experiment)
    pace = c.load.per_second * course.load * count / c.users.count
    if experiment and c.harm.fewer:
        pace = np.where(course.seconds < 0, pace, pace * (1 - c.harm.fewer))
    second = np.repeat(np.arange(len(pace)), rng.poisson(pace))
    begun = course.seconds[second] + rng.random(len(second))
    users = np.minimum(np.searchsorted(reach, rng.random(len(second)) * reach[-1]), count - 1)
    faulted = (begun >= 0) & experiment
    chances = _chances(c, own[users] * course.drift[second], faulted, hit[users])
    failed = rng.random(len(second)) < chances + course.incidents[second]
    seconds = _durations(rng, c.latencies, course.octave, len(second))
    seconds = np.where(faulted, seconds * c.harm.slower + c.harm.delay, seconds)
    for share, after in ((c.harm.timeouts, c.harm.timeout), (c.harm.resets, _RESET_SECONDS)):
        if share:
            struck = faulted & (rng.random(len(second)) < share)
            failed, seconds = failed | struck, np.where(struck, after, seconds)
    if c.gives_up is not None:
        failed |= seconds > c.gives_up
        seconds = np.minimum(seconds, c.gives_up)
    if c.retries is not None:
        return _retried(rng, c.retries, Requests(begun, seconds, failed, users, count), chances)
    return Requests(begun, seconds, failed, users, count)


def _chances(c: Conditions, own: Numbers, faulted: Flags, hit: Flags) -> Numbers:
    """The chance that each request fails, incidents apart."""
    if c.retries is not None:
        usual, worse = (
            first_failures(c.retries, share) for share in (c.errors, c.errors + c.harm.errors)
        )
        found: Numbers = np.where(faulted, worse, usual)
        return found
    if c.harm.errors:
        # Relative to what can fail in addition, so that the mean grows by `errors` exactly.
        more = c.harm.errors / (1 - c.errors)
        own = np.where(faulted, own + more * (1 - own), own)
    if c.harm.hit:
        own = np.where(faulted & hit, 1 - (1 - own) * (1 - c.harm.hit_errors), own)
    return own


def _drawn_users(
    rng: np.random.Generator, c: Conditions, count: int, bot: bool
) -> tuple[Numbers, Numbers, Flags]:
    """Each user's requests summed up to it, chance of a failure, and whether the fault hits it."""
    weights = np.ones(count)
    if c.users.pareto is not None:
        weights += rng.pareto(c.users.pareto, count)
    own = np.full(count, c.errors)
    if c.users.icc:
        spread = 1 / c.users.icc - 1
        own = rng.beta(c.errors * spread, (1 - c.errors) * spread, count)
    if c.users.bot and bot and count > 1:
        weights[0] = c.users.bot / (1 - c.users.bot) * weights[1:].sum()
    return np.cumsum(weights), own, rng.random(count) < c.harm.hit


def _durations(
    rng: np.random.Generator, latencies: Latencies | None, octave: float, count: int
) -> Numbers:
    if latencies is None:
        return np.full(count, _SECONDS)
    median: Numbers | float = latencies.median
    if latencies.slow_share:
        slow = rng.random(count) < latencies.slow_share
        median = np.where(slow, latencies.slow_median, median)
    found: Numbers = median * np.exp(latencies.sigma * rng.standard_normal(count))
    return found * 2**octave if latencies.anywhere else found


def _retried(
    rng: np.random.Generator, retries: Retries, first: Requests, chances: Numbers
) -> Requests:
    """The requests with all their retries; a retry has the chances of the first one."""
    begun, failed, users = first.begun, first.failed, first.users
    found = [(begun, failed, users)]
    for _ in range(retries.most):
        again = failed & (rng.random(len(failed)) < retries.share)
        begun, users, chances = begun[again], users[again], chances[again]
        begun = begun + 2 * rng.random(len(begun))
        sticky = rng.random(len(begun)) < retries.sticky
        failed = sticky | (rng.random(len(begun)) < chances)
        found.append((begun, failed, users))
    begun, failed, users = (np.concatenate(each) for each in zip(*found, strict=True))
    return Requests(begun, np.full(len(begun), _SECONDS), failed, users, first.count)


def first_failures(retries: Retries, share: float) -> float:
    """Return which share of first requests fails if this share of all requests does."""
    low, high = 0.0, share
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_failed(retries, middle) < share else (low, middle)
    return high


def _share_failed(retries: Retries, first: float) -> float:
    """The share of failed ones among first requests and their retries."""
    sent, failed, failing = 1.0, first, first
    for _ in range(retries.most):
        tried = failing * retries.share
        failing = tried * (retries.sticky + (1 - retries.sticky) * first)
        sent, failed = sent + tried, failed + failing
    return failed / sent


def _queued(rng: np.random.Generator, c: Conditions, q: Queue) -> tuple[Requests, Requests]:
    """All users' requests through one queue, first come first served."""
    length = c.baseline + c.seconds
    begun = np.sort(rng.uniform(-c.baseline, c.seconds, rng.poisson(q.per_second * length)))
    users = rng.integers(0, q.users, len(begun))
    of_each = round(q.share * q.users)
    calls = np.where((users // of_each == 1) & (begun >= 0), q.background, 0.0)
    calls = np.floor(calls + rng.random(len(calls))).astype(np.int64)
    more = np.repeat(begun, calls)
    more = more + rng.exponential(q.service, len(more))
    times = np.concatenate([begun, more])
    order = np.argsort(times, kind="stable")
    took = np.empty(len(times))
    took[order] = _served(rng, q, times[order])
    seconds = np.minimum(took[: len(begun)], q.patience + 60)
    failed = np.zeros(len(begun), dtype=bool)
    gone = seconds < 0
    failed[gone], seconds[gone] = True, q.patience
    found = []
    for cohort in (0, 1):
        mine = users // of_each == cohort
        own = users[mine] - cohort * of_each
        found.append(Requests(begun[mine], seconds[mine], failed[mine], own, of_each))
    return found[0], found[1]


def _served(rng: np.random.Generator, q: Queue, arrivals: Numbers) -> list[float]:
    """How long each stays, in order of arrival; -1 if it gives up waiting."""
    free = [float(arrivals[0]) if len(arrivals) else 0.0] * q.servers
    found = []
    services = rng.exponential(q.service, len(arrivals)).tolist()
    for arrival, service in zip(arrivals.tolist(), services, strict=True):
        first = free[0]
        begins = arrival if arrival > first else first
        if begins - arrival > q.patience:
            found.append(-1.0)
            continue
        heapreplace(free, begins + service)
        found.append(begins - arrival + service)
    return found
