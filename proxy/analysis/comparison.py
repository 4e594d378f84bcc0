"""Compares the cohorts in one steady-state metric: effect, bounds and evidence."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, copysign, exp, inf, log

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

# With fewer effective replicates the variance between them is too uncertain: single users decide.
LEAST_CLUSTERS = 8.0
# With fewer events a z-score is not close enough to normal.
LEAST_EVENTS = 30
# The bound of an absolute boundary: not more than all exchanges can be bad.
_MOST = 0.99
_RULE_OF_THREE = 3.0
# The normal score of 80 % power.
_POWER = 0.84


@dataclass(frozen=True, slots=True)
class Users:
    """The users of both cohorts that were met; estimates if there are very many."""

    control: int = 0
    experiment: int = 0

    @property
    def fewest(self) -> int:
        """The users of the cohort that has fewer."""
        return min(self.control, self.experiment)

    def events_each(self, events: float) -> float:
        """Return how many of so many events of both cohorts a user has on average, at least 1."""
        met = self.control + self.experiment
        return max(events / met, 1.0) if met else 1.0


UNKNOWN = Users()
"""Users of whom nothing is known: each event counts as one of its own."""


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
    users: int = 0
    """How many users the cohort with fewer has; 0: unknown."""

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
    def users_needed(self) -> int | None:
        """How many users the smaller cohort needs; None for a rate, and while it is unknown."""
        if self.signal is None or self.metric.rate or self.metric.prometheus:
            return None
        return users_for(self.signal.reach)

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
        return bounds(self.signal, self.threshold.harm, self.threshold.within)

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
    users: Users = UNKNOWN,
) -> Comparison:
    """Compare the cohorts of a pair of samples in a metric.

    Args:
        metric: The metric and its tolerance.
        pair: The events of both cohorts.
        cohorts: The shares of users in them.
        threshold: When evidence decides.
        reading: The state of an external metric.
        users: The users that were met.
    """
    found = signal(metric, pair, cohorts, 1.0, users)
    told = evidence(found) if found else Evidence()
    return Comparison(metric, pair, cohorts, threshold, found, told, reading, users.fewest)


def signal(
    metric: Metric,
    pair: Pair,
    cohorts: Cohorts,
    tolerances: float = 1.0,
    users: Users = UNKNOWN,
) -> Signal | None:
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
        width, per_user = metric.latency.cells.width, users.events_each(hc.total + he.total)
        found, clusters = quantile(hc, he, boundary, width, per_user)
        return found if _enough(min(hc.total, he.total), clusters) else None
    hits = GOOD if boundary.sign < 0 else BAD
    sc, se = share_of(control, hits), share_of(experiment, hits)
    enough = _enough(sc.total, sc.clusters) and _enough(se.total, se.clusters)
    per_user = users.events_each(sc.total + se.total)
    return proportion(sc, se, boundary, per_user) if enough else None


def users_for(share: float) -> int:
    """Return how many users a cohort needs for one of such a share of users to be among them.

    `share` is 0 to 1. It is the rule of three: of 3 / share users, all belong to the others in 5 %
    of cases (Hanley & Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249,
    1983).
    """
    return ceil(_RULE_OF_THREE / share)


def unseen_share(users: int) -> float | None:
    """Return which share of users, 0 to 1, may be harmed though none of so many is; None: all."""
    return _RULE_OF_THREE / users if users > _RULE_OF_THREE else None


def _enough(total: float, clusters: float) -> bool:
    return total >= LEAST_EVENTS and clusters >= LEAST_CLUSTERS


def boundary_of(metric: Metric, tolerances: float = 1.0) -> Boundary:
    """Return the boundary that is so many tolerances worse than control."""
    allowed = metric.tolerance
    if metric.latency is not None:
        return _quantile_boundary(allowed.value, metric.latency.cells.per_tolerance, tolerances)
    return _boundary(allowed.value, allowed.relative, metric.lower_is_worse, tolerances)


@lru_cache
def _quantile_boundary(allowed: float, cells: int, tolerances: float) -> Boundary:
    """Return a boundary that is tolerances upon each other: twice 20 % are 44 %.

    So it lies at edges of cells for any whole or half number of tolerances.
    """
    times = tolerances or 1.0
    return Boundary(
        rho=(1 + allowed) ** tolerances,
        times=(1 + allowed) ** times - 1,
        cells=cells * tolerances,
        reach_cells=cells * times,
    )


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
        case Latency(quantile=q, cells=cells):
            cdf = LatencyCdf(sample, q)
            if not cdf.total:
                return None
            return seconds(cdf.position(), cells)
        case Rate() | Prometheus():
            return sample.events / (share * 100)
        case _:
            return sample.bad / sample.events if sample.events else None
