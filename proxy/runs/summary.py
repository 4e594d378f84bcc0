"""Summarises a run: its verdict, its metrics and its users, as models that are written as JSON."""

from collections.abc import Mapping
from math import isfinite
from platform import python_version

from counterfault import __version__
from counterfault.proxy.analysis.comparison import Comparison, level_of, unseen_share
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.analysis.sample_size import needed
from counterfault.proxy.analysis.verdict import Dose, Findings, Verdict
from counterfault.proxy.analysis.wording import finding, kind_of, level, tolerance_of
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.models.run_record import MetricPoint
from counterfault.proxy.models.run_summary import (
    CohortLevel,
    DoseSummary,
    MetricEvidence,
    MetricSummary,
    RunSummary,
    UsersSummary,
    VerdictSummary,
)

VERSIONS = {"counterfault": __version__, "python": python_version()}


def verdict_summary(verdict: Verdict) -> VerdictSummary:
    """Return a verdict in the form in which it is written as JSON."""
    return VerdictSummary(
        result=verdict.result, reason=verdict.reason, provisional=verdict.provisional
    )


def run_summary(verdict: Verdict, findings: Findings, users: UserSample) -> RunSummary:
    """Return all numbers behind a verdict.

    Effects, shares and levels are fractions, times seconds.
    """
    return RunSummary(
        verdict=verdict_summary(verdict),
        dose=_dose_summary(findings.dose),
        users=_users_summary(findings.ratio, users),
        metrics=[_metric_summary(c) for c in findings.comparisons],
        versions=VERSIONS,
    )


def metric_points(
    comparisons: tuple[Comparison, ...], recent: Mapping[str, Pair]
) -> dict[str, MetricPoint]:
    """Return the metrics at one moment, by name.

    Args:
        comparisons: What is known of each metric now.
        recent: What each metric has counted since the point before.
    """
    points = {}
    for c in comparisons:
        low, high = c.bounds or (None, None)
        control, experiment = _levels(c, recent[c.metric.name])
        points[c.metric.name] = MetricPoint(
            effect=_finite(c.effect),
            lower=_finite(low),
            upper=_finite(high),
            control=control,
            experiment=experiment,
        )
    return points


def _dose_summary(dose: Dose) -> DoseSummary:
    return DoseSummary(planned=dose.planned, performed=dose.performed, share=dose.share)


def _users_summary(ratio: SampleRatio | None, users: UserSample) -> UsersSummary:
    control, experiment = users.estimate(Cohort.CONTROL), users.estimate(Cohort.EXPERIMENT)
    return UsersSummary(
        control=control,
        experiment=experiment,
        expected_share=ratio.share if ratio else None,
        evidence=ratio.evidence if ratio else 0.0,
        off=ratio.off if ratio else False,
        unseen=unseen_share(min(control, experiment)),
    )


def _metric_summary(c: Comparison) -> MetricSummary:
    kind, metric = kind_of(c.metric), c.metric
    low, high = c.bounds or (None, None)
    control, experiment = _levels(c, c.pair)
    return MetricSummary(
        name=metric.name,
        at=metric.at or kind,
        kind=kind,
        plain=c.plain,
        no_data=c.no_data or None,
        tolerance=tolerance_of(metric),
        unit="%" if metric.tolerance.relative else "pp",
        allowed=metric.tolerance.value,
        cell_growth=metric.latency.cells.growth if metric.latency else None,
        effect=_finite(c.effect),
        lower=_finite(low),
        upper=_finite(high),
        harmed=c.harmed,
        within=c.within,
        evidence=MetricEvidence(
            harm=_finite(c.evidence.harm),
            within=_finite(c.evidence.within),
            harm_at=c.threshold.harm,
            within_at=c.threshold.within,
        ),
        detectable=_finite(c.detectable),
        needed=needed(c),
        users_needed=c.users_needed,
        clusters=c.clusters,
        control=control,
        experiment=experiment,
        says=finding(c),
        levels=[level(c, value) for value in c.levels],
    )


def _levels(c: Comparison, pair: Pair) -> tuple[CohortLevel, CohortLevel]:
    """Return control's and experiment's level in a pair of samples.

    A plain metric has no samples: its levels are the last values that Prometheus gave.
    """
    samples = (pair.control, pair.experiment)
    if c.plain or pair is c.pair:
        levels = c.levels
    else:
        levels = (
            level_of(c.metric, pair.control, c.cohorts.control),
            level_of(c.metric, pair.experiment, c.cohorts.experiment),
        )
    control, experiment = (
        CohortLevel(events=sample.events, bad=sample.bad, level=_finite(level))
        for sample, level in zip(samples, levels, strict=True)
    )
    return control, experiment


def _finite(value: float | None) -> float | None:
    """Return None instead of an infinity, which JSON cannot write: no bound is null."""
    return value if value is not None and isfinite(value) else None
