"""Who sends the requests: how active users are, how alike their requests, and when they come."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterfault.proxy.experiments.cohorts import REPLICATES

type Numbers = NDArray[np.float64]
type Indexes = NDArray[np.int64]

# Of a broken client half of the requests fail, or they take, or are, ten times as much.
BROKEN_SHARE = 0.5
BROKEN_TIMES = 10.0
_FIRST = 5  # users that are there from the start, when they come one after the other


@dataclass(frozen=True, slots=True)
class Crowd:
    """Users of one cohort; `users` 0: each request has a user of its own."""

    text: str
    users: int = 0
    activity: float = 0.0
    """Sigma of the lognormal number of requests of a user."""
    icc: float = 0.0
    """The intra-user correlation."""
    staggered: bool = False
    """Users come one after the other, evenly over the longest run."""
    broken: float = 0.0
    """The share of clients that are broken."""


@dataclass(frozen=True, slots=True)
class Senders:
    """One cohort's users as drawn: of each its replicate, what it sends up to it, and its state."""

    replicates: Indexes
    reach: Numbers
    broken: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return len(self.reach)


def senders(rng: np.random.Generator, crowd: Crowd, broken_send: float = 1.0) -> Senders:
    """Draw a cohort; how many users it has is chance too, as they are hashed into it."""
    count = max(int(rng.poisson(crowd.users)), _FIRST)
    broken = rng.random(count) < crowd.broken
    weights = np.exp(crowd.activity * rng.standard_normal(count))
    weights *= np.where(broken, broken_send, 1.0)
    mean = np.exp(crowd.activity**2 / 2) * (1 + crowd.broken * (broken_send - 1))
    reach = np.cumsum(weights) / (mean * crowd.users)
    return Senders(rng.integers(0, REPLICATES, count), reach, broken)


def present(crowd: Crowd, count: int, share: Numbers) -> Indexes:
    """How many of a cohort's users have come when a share of the run is over."""
    if not crowd.staggered:
        return np.full(len(share), count)
    return np.clip((count * share).astype(np.int64), min(_FIRST, count), count)


def who(rng: np.random.Generator, crowd: Crowd, drawn: Senders, share: Numbers) -> Indexes:
    """The user of each request; `share` says when in the run it comes."""
    most = drawn.reach[present(crowd, drawn.count, share) - 1]
    found = np.searchsorted(drawn.reach, rng.random(len(share)) * most)
    return np.minimum(found, drawn.count - 1)
