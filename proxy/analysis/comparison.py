"""One steady-state metric of two cohorts, compared: effect, bounds and evidence."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import copysign, exp, inf, log

from counterfault.proxy.analysis.deviance import Boundary, proportion, quantile, rate
from counterfault.proxy.analysis.external.reading import Reading
from counterfault.proxy.analysis.latency_cdf import LatencyCdf, seconds
from counterfault.proxy.analysis.replicate_variance import clusters_of, events_of, share_of
from counterfault.proxy.analysis.sequential import Evidence, Signal, bounds, evidence
from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import (
    Latency,
    Metric,
    Prometheus,
    Rate,
    SuccessRate,
)
from counterfault.proxy.measurement.samples import BAD, GOOD, Pair, Sample
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

# With fewer, what replicates say of each other means little: some single users decide.
LEAST_CLUSTERS = 8.0
# With fewer, a normal score is not normal yet.
LEAST_EVENTS = 30
# Of many tolerances: more than all exchanges cannot be bad.
_MOST = 0.99
# The normal score of 80 %: so many runs with an effect of that size would see it.
_POWER = 0.84


@dataclass(frozen=True, slots=True)
class Threshold:
    """When evidence decides, as natural logarithms."""

    harm: float
    within: float

    @classmethod
    def of(cls, confidence: float, metrics: int) -> "Threshold":
        """Bonferroni over the metrics for harm; to hold, all of them must be within."""
        alpha = 1 - confidence
        return cls(log(max(metrics, 1) / alpha), log(1 / alpha))


@dataclass(frozen=True)  # no slots: what many ask for is computed once
class Comparison:
    """What is known of one metric; effects are positive where users are worse off.

    An effect is a fraction in the tolerance's unit: of all exchanges for `0.5pp`, of control's
    level for `20%`. None: not enough is known yet.
    """

    metric: Metric
    pair: Pair
    cohorts: Cohorts
    threshold: Threshold
    signal: Signal | None
    evidence: Evidence
    reading: Reading | None
    """Of an outside metric."""

    @property
    def plain(self) -> bool:
        """Whether there is nothing to test, only one number per cohort and a threshold."""
        return self.reading is not None and self.reading.plain

    @property
    def no_data(self) -> str:
        """Why an outside metric has no data now; empty: it has."""
        return self.reading.no_data if self.reading is not None else ""

    @cached_property
    def levels(self) -> tuple[float | None, float | None]:
        """Control's and experiment's: share of bad events, seconds, or events per 1 % of users.

        Of a plain metric, whatever its query answered.
        """
        if self.reading is not None and self.reading.plain:
            return self.reading.levels or (None, None)
        return (
            level_of(self.metric, self.pair.control, self.cohorts.control),
            level_of(self.metric, self.pair.experiment, self.cohorts.experiment),
        )

    @cached_property
    def clusters(self) -> float:
        """Effective replicates, of the cohort that has fewer; one user alone is one."""
        return min(clusters_of(each.counts) for each in (self.pair.control, self.pair.experiment))

    @property
    def harmed(self) -> bool:
        beyond = self.reading is not None and self.reading.beyond
        return beyond or self.evidence.harm >= self.threshold.harm

    @property
    def within(self) -> bool:
        return self.evidence.within >= self.threshold.within and not self.no_data

    @property
    def effect(self) -> float | None:
        if self.reading is not None and self.reading.plain:
            return self.reading.effect
        return None if self.signal is None else self._effect(self.signal.distance)

    @cached_property
    def _distances(self) -> tuple[float, float] | None:
        """Bounds of the distance from the boundary."""
        if self.signal is None:
            return None
        return bounds(self.signal, self.threshold.harm, self.threshold.within)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Anytime-valid, each side by itself; they pass the tolerance just when evidence does."""
        if self._distances is None:
            return None
        low, high = self._distances
        least, most = self._possible
        return max(self._effect(low), least), min(self._effect(high), most)

    @property
    def _possible(self) -> tuple[float, float]:
        """What an effect can be at all: nobody can lose more than there is."""
        if not self.metric.tolerance.relative:
            return -1.0, 1.0
        return (-inf, 1.0) if self.metric.lower_is_worse else (-1.0, inf)

    @property
    def detectable(self) -> float | None:
        """The effect that four of five runs with as many events would have found."""
        if self.signal is None or self._distances is None:
            return None
        low, _ = self._distances
        return self._effect(self.signal.distance - low + _POWER * self.signal.error)

    def _effect(self, distance: float) -> float:
        """The effect at a distance from the boundary."""
        kind, allowed = self.metric.kind, self.metric.tolerance
        if isinstance(kind, Latency):
            return exp(distance) * (1 + allowed.value) - 1 if distance < 700 else inf
        if not allowed.relative:
            return distance + allowed.value
        level = self.levels[0] or 0.0
        scale = 1 - level if isinstance(kind, SuccessRate) else level
        if scale <= 0:  # anything is without measure more than nothing
            return copysign(inf, distance) if distance else 0.0
        return distance / scale + allowed.value


def compare(
    metric: Metric,
    pair: Pair,
    cohorts: Cohorts,
    threshold: Threshold,
    reading: Reading | None = None,
) -> Comparison:
    """A metric against its tolerance; `reading`: of an outside metric."""
    found = signal(metric, pair, cohorts)
    told = evidence(found) if found else Evidence()
    return Comparison(metric, pair, cohorts, threshold, found, told, reading)


def signal(metric: Metric, pair: Pair, cohorts: Cohorts, tolerances: float = 1.0) -> Signal | None:
    """Where the experiment stands against a boundary of so many tolerances; 0: equality.

    None while there are too few events, or too few users behind them, to tell.
    """
    control, experiment = pair.control.counts, pair.experiment.counts
    boundary = boundary_of(metric, tolerances)
    if metric.rate is not None or metric.prometheus is not None:
        rows = pair.replicates if metric.prometheus is not None else REPLICATES
        nc, ne = events_of(control[:rows]), events_of(experiment[:rows])
        # That the experiment has no events may be just what harm looks like.
        if not _enough(nc.total, nc.clusters):
            return None
        return rate((nc, 100 * cohorts.control), (ne, 100 * cohorts.experiment), boundary)
    if metric.latency is not None:
        q = metric.latency.quantile
        hc, he = LatencyCdf(pair.control, q), LatencyCdf(pair.experiment, q)
        if not (hc.total and he.total):
            return None
        found, clusters = quantile(hc, he, boundary)
        return found if _enough(min(hc.total, he.total), clusters) else None
    hits = GOOD if boundary.sign < 0 else BAD
    sc, se = share_of(control, hits), share_of(experiment, hits)
    enough = _enough(sc.total, sc.clusters) and _enough(se.total, se.clusters)
    return proportion(sc, se, boundary) if enough else None


def _enough(total: float, clusters: float) -> bool:
    return total >= LEAST_EVENTS and clusters >= LEAST_CLUSTERS


def boundary_of(metric: Metric, tolerances: float = 1.0) -> Boundary:
    """The boundary at so many tolerances; no effect is one tolerance away from equality."""
    allowed = metric.tolerance
    return _boundary(allowed.value, allowed.relative, metric.lower_is_worse, tolerances)


@lru_cache
def _boundary(allowed: float, relative: bool, lower_is_worse: bool, tolerances: float) -> Boundary:
    reach = allowed * (tolerances or 1.0)
    if not relative:
        return Boundary(delta=min(allowed * tolerances, _MOST), plus=reach)
    rho = max(1 - allowed * tolerances, 0.01) if lower_is_worse else 1 + allowed * tolerances
    return Boundary(rho=rho, sign=-1 if lower_is_worse else 1, times=reach)


def level_of(metric: Metric, sample: Sample, share: float) -> float | None:
    """A cohort's own level; None without events."""
    match metric.kind:
        case Latency(quantile=q):
            ladder = LatencyCdf(sample, q)
            if not ladder.total:
                return None
            found = seconds(ladder.position())
            # Beyond the outer bounds, they are all that is known.
            return min(max(found, LATENCY_BUCKETS[0]), LATENCY_BUCKETS[-1])
        case Rate() | Prometheus():
            return sample.events / (share * 100)
        case _:
            return sample.bad / sample.events if sample.events else None
