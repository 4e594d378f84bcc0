"""Compares the cohorts in one steady-state metric: effect, bounds and evidence."""

from dataclasses import dataclass, replace
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
from counterfault.proxy.measurement.samples import (
    BAD,
    GOOD,
    Counts,
    Pair,
    Sample,
    columns_for,
)
from counterfault.proxy.values.buckets import LATENCY_BUCKETS

# With fewer effective replicates the variance between them is too uncertain: single users decide.
LEAST_CLUSTERS = 8.0
# With fewer events a z-score is not close enough to normal.
LEAST_EVENTS = 30
# The bound of an absolute boundary: not more than all exchanges can be bad.
_MOST = 0.99
# The normal score of 80 % power.
_POWER = 0.84


@dataclass(frozen=True, slots=True)
class Threshold:
    """The evidence at which harm and "within" are decided: natural logarithms of e-values."""

    harm: float
    within: float

    @classmethod
    def of(cls, confidence: float, metrics: int) -> "Threshold":
        """Return the thresholds for a confidence, 0 to 1, and a number of metrics.

        Harm in any metric stops a run, so its level is divided by their number (Bonferroni); to
        hold, all metrics must be within, so that level is not.
        """
        alpha = 1 - confidence
        return cls(log(max(metrics, 1) / alpha), log(1 / alpha))


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class Comparison:
    """The comparison of the cohorts in one metric.

    Effects are positive where users of the experiment are worse off. They are fractions in the
    unit of the tolerance: of all exchanges for `0.5pp`, of control's level for `20%`. They are None
    while there are too few events.
    """

    metric: Metric
    pair: Pair
    cohorts: Cohorts
    threshold: Threshold
    signal: Signal | None
    evidence: Evidence
    reading: Reading | None
    """The state of an external metric; None for a metric that is measured here."""
    late: Signal | None = None
    """The signal if what the experiment has under way for too long were bad; None: nothing is."""
    unfinished: int = 0
    """How many exchanges of the experiment are under way for too long."""

    @property
    def plain(self) -> bool:
        """Whether there is one number per cohort only, which cannot be tested statistically."""
        return self.reading is not None and self.reading.plain

    @property
    def no_data(self) -> str:
        """Why an external metric has no data now; empty if it has."""
        return self.reading.no_data if self.reading is not None else ""

    @cached_property
    def levels(self) -> tuple[float | None, float | None]:
        """The levels of control and of the experiment, None without events.

        A level is a share of bad events, seconds (latency), events per 1 % of users (rates), or the
        result of its query for a plain metric.
        """
        if self.reading is not None and self.reading.plain:
            return self.reading.levels or (None, None)
        return (
            level_of(self.metric, self.pair.control, self.cohorts.control),
            level_of(self.metric, self.pair.experiment, self.cohorts.experiment),
        )

    @cached_property
    def clusters(self) -> float:
        """Effective replicates of the cohort that has fewer; a single user counts as one."""
        return min(clusters_of(each.counts) for each in (self.pair.control, self.pair.experiment))

    @property
    def harmed(self) -> bool:
        """Whether the experiment is worse than the tolerance allows, at the threshold for harm."""
        beyond = self.reading is not None and self.reading.beyond
        return beyond or self.evidence.harm >= self.threshold.harm

    @property
    def within(self) -> bool:
        """Whether the effect is within the tolerance, at the threshold for that."""
        return self.evidence.within >= self.threshold.within and not self.no_data

    @property
    def effect(self) -> float | None:
        """The estimate of the effect, as a fraction in the unit of the tolerance."""
        if self.reading is not None and self.reading.plain:
            return self.reading.effect
        return None if self.signal is None else self._effect(self.signal.distance)

    @cached_property
    def _distances(self) -> tuple[float, float] | None:
        """Bounds of the distance from the boundary, in the unit of `Signal.distance`."""
        if self.signal is None:
            return None
        found = bounds(self.signal, self.threshold.harm, self.threshold.within)
        if self.late is None:
            return found
        return found[0], bounds(self.late, self.threshold.harm, self.threshold.within)[1]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper bound of the effect, each valid at any time by itself.

        The lower one passes the tolerance exactly when `harmed` begins to hold, the upper one when
        `within` does.
        """
        if self._distances is None:
            return None
        low, high = self._distances
        least, most = self._possible
        return max(self._effect(low), least), min(self._effect(high), most)

    @property
    def _possible(self) -> tuple[float, float]:
        """The least and the greatest effect that are possible at all."""
        if not self.metric.tolerance.relative:
            return -1.0, 1.0
        return (-inf, 1.0) if self.metric.lower_is_worse else (-1.0, inf)

    @property
    def detectable(self) -> float | None:
        """The effect that a run with as many events finds with a chance of 80 %."""
        if self.signal is None or self._distances is None:
            return None
        low, _ = self._distances
        return self._effect(self.signal.distance - low + _POWER * self.signal.error)

    def _effect(self, distance: float) -> float:
        """Return the effect at a distance from the boundary."""
        kind, allowed = self.metric.kind, self.metric.tolerance
        if isinstance(kind, Latency):
            return exp(distance) * (1 + allowed.value) - 1 if distance < 700 else inf
        if not allowed.relative:
            return distance + allowed.value
        level = self.levels[0] or 0.0
        scale = 1 - level if isinstance(kind, SuccessRate) else level
        if scale <= 0:  # relative to nothing, any difference is infinite
            return copysign(inf, distance) if distance else 0.0
        return distance / scale + allowed.value


def compare(
    metric: Metric,
    pair: Pair,
    cohorts: Cohorts,
    threshold: Threshold,
    reading: Reading | None = None,
    unfinished: Counts | None = None,
) -> Comparison:
    """Compare the cohorts of a pair of samples in a metric.

    Args:
        metric: The metric and its tolerance.
        pair: The events of both cohorts.
        cohorts: The shares of users in them.
        threshold: When evidence decides.
        reading: The state of an external metric.
        unfinished: Exchanges of the experiment that are under way for longer than control's usually
            take, by replicate, shape (64,). They are bad where "within" is decided, and do not
            count where harm is: how they end is not known yet.
    """
    found = signal(metric, pair, cohorts)
    told = evidence(found) if found else Evidence()
    late, waiting = None, 0
    if found is not None and unfinished is not None and _counts_failures(metric):
        waiting = int(unfinished.sum())
        if waiting:
            bad = _failed(metric, unfinished)
            late = signal(metric, Pair(pair.control, pair.experiment + bad), cohorts) or found
            told = replace(told, within=min(told.within, evidence(late).within))
    return Comparison(metric, pair, cohorts, threshold, found, told, reading, late, waiting)


def _counts_failures(metric: Metric) -> bool:
    return metric.rate is None and metric.prometheus is None


def _failed(metric: Metric, counts: Counts) -> Sample:
    """Return failed exchanges as a sample of a metric; `counts` by replicate, shape (64,)."""
    found = Sample.empty(columns_for(metric))
    found.counts[:, -1 if metric.latency is not None else BAD] = counts
    return found


def signal(metric: Metric, pair: Pair, cohorts: Cohorts, tolerances: float = 1.0) -> Signal | None:
    """Return the distance of the experiment from a boundary, with its standard error.

    The boundary is so many `tolerances` worse than control; 0 is equality. Returns None while there
    are too few events, or too few users who cause them.
    """
    control, experiment = pair.control.counts, pair.experiment.counts
    boundary = boundary_of(metric, tolerances)
    if metric.rate is not None or metric.prometheus is not None:
        rows = pair.replicates if metric.prometheus is not None else REPLICATES
        nc, ne = events_of(control[:rows]), events_of(experiment[:rows])
        # Only control needs events: if the experiment has none, that may be the harm.
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
    """Return the boundary that is so many tolerances worse than control."""
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
    """Return the level of a cohort, in the units of `Comparison.levels`; None without events.

    `share` is the cohort's share of users, 0 to 1.
    """
    match metric.kind:
        case Latency(quantile=q):
            cdf = LatencyCdf(sample, q)
            if not cdf.total:
                return None
            found = seconds(cdf.position())
            # Outside the outer bounds nothing but the bounds is known.
            return min(max(found, LATENCY_BUCKETS[0]), LATENCY_BUCKETS[-1])
        case Rate() | Prometheus():
            return sample.events / (share * 100)
        case _:
            return sample.bad / sample.events if sample.events else None
