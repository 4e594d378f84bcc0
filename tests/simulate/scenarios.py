"""What is simulated: every kind of metric, at the boundary, without an effect, and with harm."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from counterfault.proxy.experiments.steady_state import Metric
from tests.simulate.crowds import Crowd, Indexes
from tests.simulate.traffic import World

ALPHA = 0.05
LONGEST = 100_000


def metric(**kind: dict[str, Any]) -> Metric:
    return Metric.model_validate({"name": "simulated", "at": "inbound", **kind})


ERRORS = metric(success_rate={"drop": "0.5pp"})
P99 = metric(latency={"quantile": 0.99, "rise": "20%"})
P50 = metric(latency={"quantile": 0.5, "rise": "10%"})
# Each kind with the share of events that is bad in control.
KINDS: dict[str, tuple[Metric, float]] = {
    "success_rate 0.5pp": (ERRORS, 0.01),
    "success_rate 1%": (metric(success_rate={"drop": "1%"}), 0.01),
    "slow 1pp": (metric(slow={"over": "300ms", "rise": "1pp"}), 0.05),
    "slow 20%": (metric(slow={"over": "300ms", "rise": "20%"}), 0.05),
    "latency p50 10%": (P50, 0.0),
    "latency p99 20%": (P99, 0.0),
    "rate 5%": (metric(rate={"drop": "5%"}), 0.0),
}
APART = Crowd("independent requests")
ALIKE = Crowd("2,000 users, correlated", users=2000, activity=1.5, icc=0.05)
STAGGERED = Crowd("… who come one by one", users=2000, activity=1.5, icc=0.05, staggered=True)
BROKEN = Crowd("… 2 % with broken clients", users=2000, activity=1.5, broken=0.02)
CROWDS = (APART, ALIKE, STAGGERED, BROKEN)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table; `most` requests per cohort, if nothing is decided before."""

    group: str
    name: str
    world: World
    most: int = LONGEST
    at_most: float | None = None
    """The target: of false alarms a share, else the median of requests per cohort."""

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}, {self.world.crowd.text}"


def looks(most: int) -> Indexes:
    """Every 10 requests up to 1,000, then every 100."""
    early = np.arange(10, min(most, 1000) + 1, 10)
    return np.concatenate([early, np.arange(1100, most + 1, 100)])


def _false_alarms() -> list[Scenario]:
    found = []
    for group, tolerances in (("boundary", 1.0), ("A/A", 0.0)):
        for crowd in CROWDS:
            for name, (kind, level) in KINDS.items():
                world = World(kind, crowd, tolerances, level)
                found.append(Scenario(group, name, world, at_most=ALPHA))
    return found


def _harm() -> list[Scenario]:
    tail = World(P99, APART, 2.5, tail=True)
    return [
        Scenario("harm", "errors 0.1 → 1 %, 0.5pp", World(ERRORS, APART, 1.8, 0.001), 30_000, 6500),
        Scenario("harm", "errors 0.1 → 5 %, 0.5pp", World(ERRORS, APART, 9.8, 0.001), 5000, 300),
        Scenario("harm", "outage 0.1 → 50 %, 0.5pp", World(ERRORS, APART, 99.8, 0.001), 1000, 80),
        Scenario("harm", "p99 + 50 %, all slower, 20%", World(P99, APART, 2.5), 20_000, 2200),
        Scenario("harm", "p99 + 50 %, tail slower, 20%", tail, 20_000, 2200),
        Scenario("harm", "p50 50 → 60 ms, 10%", World(P50, APART, 2.0), 10_000, 1000),
    ]


def _harmless() -> list[Scenario]:
    return [
        Scenario("no effect", "errors 0.1 %, 0.5pp", World(ERRORS, APART, 0.0, 0.001), 30_000),
        Scenario("no effect", "errors 1 %, 0.5pp", World(ERRORS, APART, 0.0, 0.01), 50_000),
        Scenario("no effect", "p99, 20%", World(P99, APART, 0.0), 20_000),
        Scenario("no effect", "p50, 10%", World(P50, APART, 0.0), 20_000),
        Scenario("no effect", "rate, 5%", World(KINDS["rate 5%"][0], APART, 0.0), 60_000),
    ]


SCENARIOS = (*_false_alarms(), *_harm(), *_harmless())
