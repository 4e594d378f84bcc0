"""One run in adversarial traffic: the sidecar's rules look at it each second until it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from zlib import crc32

import numpy as np

from counterfault.proxy.analysis.comparison import Threshold, Users, compare
from counterfault.proxy.analysis.difference import difference_evidence, exceeds
from counterfault.proxy.analysis.monitor import BASELINE_ALPHA, STEP, TOLERANCES, WINDOW
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair, Sample
from tests.simulate.conditions import Conditions
from tests.simulate.requests import draw
from tests.simulate.sight import Seen, Sight

_COHORTS = Cohorts.model_validate({"experiment": "10%", "control": "10%"})
_THRESHOLD = Threshold.of(0.95, 1)
_DISTURBED = log(1 / 0.001)


@dataclass(frozen=True, slots=True)
class Adversity:
    """One cell of the table of adversarial traffic."""

    group: str
    name: str
    metric: Metric
    conditions: Conditions
    wrong: Mapping[str, float]
    """What is wrong to say, each with the share of runs in which it may be said."""

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass(frozen=True, slots=True)
class Ending:
    """The seconds after which each was said; 0: never. What ends a run is said once.

    `held_at_end` is the last second if the metric is within its tolerance then.
    """

    refuted: int = 0
    held: int = 0
    held_at_end: int = 0
    ended: int = 0
    """Ended as not comparable: cohorts differ in the baseline, in size, or control suffers too."""
    silent: int = 0
    """There was no signal even at the end."""


def run(cell: Adversity, seed: int, number: int) -> Ending:
    """A run of a cell; always the same for the same seed and number."""
    rng = np.random.default_rng([seed, crc32(cell.key.encode()), number])
    conditions = cell.conditions
    sight = Sight(cell.metric, draw(rng, conditions), rng)
    before: Seen | None = None
    for before in sight.baseline(conditions.baseline):
        if _differ(cell.metric, before):
            return Ending(ended=1)
    control = before.pair.control if before is not None else None
    return _watched(cell, sight, control)


def _watched(cell: Adversity, sight: Sight, before: Sample | None) -> Ending:
    metric, held = cell.metric, 0
    window = _Window()
    compared = None
    for seen in sight.running(cell.conditions.seconds):
        compared = compare(metric, seen.pair, _COHORTS, _THRESHOLD, None, Users(*seen.users))
        if compared.harmed:
            return Ending(refuted=seen.second, held=held)
        if compared.within and not held:
            held = seen.second
        if _mismatched(seen) or _disturbed(metric, before, window.of(seen)):
            return Ending(held=held, ended=seen.second)
    if compared is None or compared.signal is None:
        return Ending(held=held, silent=cell.conditions.seconds)
    return Ending(held=held, held_at_end=cell.conditions.seconds if compared.within else 0)


class _Window:
    """Control's events of about the last minute, as the product's monitor compares them."""

    def __init__(self) -> None:
        self._earlier: list[tuple[int, Sample]] = []

    def of(self, seen: Seen) -> Sample:
        control = seen.pair.control
        if not self._earlier or seen.second - self._earlier[-1][0] >= STEP:
            self._earlier.append((seen.second, Sample(control.counts.copy())))
        while len(self._earlier) > 1 and seen.second - self._earlier[1][0] >= WINDOW:
            self._earlier.pop(0)
        return control - self._earlier[0][1]


def _differ(metric: Metric, seen: Seen) -> bool:
    return difference_evidence(metric, seen.pair, _COHORTS, Users(*seen.users)) >= log(
        1 / BASELINE_ALPHA
    )


def _mismatched(seen: Seen) -> bool:
    control, experiment = seen.users
    return SampleRatio(control, experiment, 0.5).off


def _disturbed(metric: Metric, before: Sample | None, window: Sample) -> bool:
    if before is None or metric.rate is not None:
        return False
    return exceeds(metric, Pair(before, window), _COHORTS, TOLERANCES, _DISTURBED)
