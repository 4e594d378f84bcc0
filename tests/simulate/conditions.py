"""Adversarial traffic, declared: who sends, when, what goes wrong. Nothing here is the product's.

Shares are fractions, times are seconds since the faults began; the baseline has negative ones.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Users:
    """The users of one cohort."""

    count: int
    """How many on average; they are hashed into a cohort, so their number is Poisson's."""
    icc: float = 0.0
    """The intra-user correlation of failures: a user's chance of one is drawn from a beta."""
    pareto: float | None = None
    """The shape of a Pareto distribution of the number of requests of a user; None: all alike."""
    bot: float = 0.0
    """The share of the requests of one cohort, drawn by a coin, that one user sends."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests come, per cohort; both cohorts go through the same bursts."""

    per_second: float = 50.0
    ramp: float = 1.0
    """How many times as many requests come at the end as at the beginning."""
    burst: float = 1.0
    """By how much load is multiplied in about six bursts of 2 to 14 seconds."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """The lognormal durations of requests, of one mode or two."""

    median: float = 0.05
    sigma: float = 0.5
    anywhere: bool = False
    """The median is drawn for each run, from a whole octave: any place within a bucket."""
    slow_share: float = 0.0
    slow_median: float = 1.0


@dataclass(frozen=True, slots=True)
class Incidents:
    """Times in which requests of both cohorts fail, whatever the experiment does."""

    every: float = 100.0
    lasts: float = 10.0
    errors: float = 0.2
    """The share of requests that fail in addition."""


@dataclass(frozen=True, slots=True)
class Retries:
    """What failed is sent again, which usually fails again."""

    most: int = 3
    share: float = 0.8
    sticky: float = 0.7
    """The chance that a retry fails for the reason that the request had."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that all users share, of which each cohort's requests are a tenth.

    The experiment's requests have background calls, such as retries and hedges, as a consequence.
    Its users notice nothing of the fault but what the queue does to all.
    """

    background: float
    """Background calls per request of the experiment."""
    servers: int = 20
    service: float = 0.05
    """The mean of the exponential time of service."""
    per_second: float = 300.0
    users: int = 20_000
    share: float = 0.1
    patience: float = 1.0
    """A client gives up when it has waited so long for a server."""


@dataclass(frozen=True, slots=True)
class Harm:
    """What the fault does to the experiment, from second 0 on."""

    errors: float = 0.0
    """The share of all requests that fails in addition, whoever sends them."""
    hit: float = 0.0
    """The share of users of whom more requests fail than of others."""
    hit_errors: float = 1.0
    """The share of their requests that fails in addition."""
    slower: float = 1.0
    """By how much durations are multiplied."""
    delay: float = 0.0
    """What is added to each duration."""
    timeouts: float = 0.0
    """The share of requests that fails after `timeout`."""
    timeout: float = 0.0
    resets: float = 0.0
    """The share of requests that fails at once."""
    fewer: float = 0.0
    """The share of requests that is not sent."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that the traffic of a run is drawn from."""

    users: Users
    load: Load = Load()
    errors: float = 0.01
    """Control's share of failed requests."""
    drift: float = 1.0
    """By how much failures of both cohorts are multiplied from the beginning to the end."""
    latencies: Latencies | None = None
    """None: all requests take 50 ms."""
    incidents: Incidents | None = None
    retries: Retries | None = None
    queue: Queue | None = None
    """If there is one, it takes the place of users, load, failures and latencies."""
    gives_up: float | None = None
    """A client gives up after so many seconds, and calls that a failure."""
    harm: Harm = Harm()
    baseline: int = 60
    seconds: int = 300
