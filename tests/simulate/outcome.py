"""One run: traffic is drawn, and looked at until harm is found; by us and by others."""

from dataclasses import asdict, dataclass
from math import log
from zlib import crc32

import numpy as np

from counterfault.proxy.analysis.comparison import Threshold, compare
from counterfault.proxy.analysis.difference import difference_evidence
from counterfault.proxy.experiments.experiment import Cohorts
from tests.simulate.crowds import Indexes
from tests.simulate.peers import alarms
from tests.simulate.scenarios import ALPHA, Scenario, looks
from tests.simulate.traffic import Cohort, Traffic, draw

COHORTS = Cohorts.model_validate({"experiment": "1%", "control": "1%"})
THRESHOLD = Threshold.of(1 - ALPHA, 1)
_EACH = 100  # requests between two looks of the others


@dataclass(frozen=True, slots=True)
class Outcome:
    """After how many requests per cohort each was said; 0: never."""

    refuted: int
    held: int
    differ: int
    mann_whitney: int
    z_test: int
    threshold: int
    held_at_end: int = 0
    """All requests of the run if `held` would be said of them, and no harm was found; else 0."""


def run(scenario: Scenario, seed: int, number: int) -> Outcome:
    """A run of a scenario; always the same for the same seed and number."""
    rng = np.random.default_rng([seed, crc32(scenario.key.encode()), number])
    world, at = scenario.world, looks(scenario.most)
    traffic = draw(rng, world, at)
    refuted, held, unequal, at_end = _decided(scenario, traffic, at)
    against = world.tolerances if scenario.group == "boundary" else 0.0
    others = alarms(world.metric, *_coarse(traffic, at), against)
    return Outcome(refuted, held, unequal, **asdict(others), held_at_end=at_end)


def _decided(scenario: Scenario, traffic: Traffic, at: Indexes) -> tuple[int, int, int, int]:
    metric = scenario.world.metric
    gate = log(1 / ALPHA)
    held = unequal = at_end = 0
    looked = zip(at.tolist(), traffic.pairs(), traffic.users(), strict=True)
    for n, pair, users in looked:
        seen = compare(metric, pair, COHORTS, THRESHOLD, None, users)
        if seen.harmed:
            return n, held, unequal, 0
        at_end = n if seen.within else 0
        if at_end and not held:
            held = n
            if scenario.group == "no effect":
                break
        if (
            scenario.group == "A/A"
            and not unequal
            and difference_evidence(metric, pair, COHORTS, users) >= gate
        ):
            unequal = n
    return 0, held, unequal, at_end


def _coarse(traffic: Traffic, at: Indexes) -> tuple[Traffic, Indexes]:
    """The same with fewer looks."""
    kept = at % _EACH == 0
    control, experiment = (
        Cohort(cohort.cells, cohort.ends[kept], cohort.width, cohort.met[kept])
        for cohort in (traffic.control, traffic.experiment)
    )
    return Traffic(control, experiment), at[kept]
