"""Tests of two samples of one metric: whether they differ, and whether one is much worse."""

from counterfault.proxy.analysis.comparison import UNKNOWN, Users, boundary_of, level_of, signal
from counterfault.proxy.analysis.latency_cdf import LatencyCdf
from counterfault.proxy.analysis.sequential import evidence, two_sided_evidence
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair


def difference_evidence(
    metric: Metric, pair: Pair, cohorts: Cohorts, users: Users = UNKNOWN
) -> float:
    """Return the two-sided evidence that the cohorts differ at all, a natural logarithm."""
    found = signal(metric, pair, cohorts, 0.0, users)
    return two_sided_evidence(found) if found else 0.0


def harm_evidence(
    metric: Metric, pair: Pair, cohorts: Cohorts, tolerances: float, users: Users = UNKNOWN
) -> float:
    """Return the evidence that the experiment is worse by more than so many tolerances.

    It is the natural logarithm of an e-value.
    """
    found = signal(metric, pair, cohorts, tolerances, users)
    return evidence(found).harm if found else 0.0


def exceeds(
    metric: Metric,
    pair: Pair,
    cohorts: Cohorts,
    tolerances: float,
    alarm: float,
    users: Users = UNKNOWN,
) -> bool:
    """Whether the evidence for harm beyond so many tolerances is at least `alarm`, a logarithm."""
    # Mostly it is not worse at all, which costs less to find out.
    return _beyond(metric, pair, cohorts, tolerances) and (
        harm_evidence(metric, pair, cohorts, tolerances, users) >= alarm
    )


def _beyond(metric: Metric, pair: Pair, cohorts: Cohorts, tolerances: float) -> bool:
    at = boundary_of(metric, tolerances)
    if metric.latency is not None:
        q = metric.latency.quantile
        hc, he = LatencyCdf(pair.control, q), LatencyCdf(pair.experiment, q)
        if not (hc.total and he.total):
            return False
        return he.position() - hc.position() > at.cells
    pc = level_of(metric, pair.control, cohorts.control) or 0.0
    pe = level_of(metric, pair.experiment, cohorts.experiment) or 0.0
    if metric.success_rate is not None and at.sign < 0:  # a level is the share of bad ones
        pc, pe = 1 - pc, 1 - pe
    return at.sign * (pe - at.rho * pc - at.delta) > 0
