"""What there is to say of a run, as data for JSON: its verdict, its metrics, its users."""

from math import isfinite
from platform import python_version
from typing import Any

from counterfault import __version__
from counterfault.proxy.analysis.comparison import Comparison, level_of
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.analysis.sample_size import needed
from counterfault.proxy.analysis.verdict import Dose, Findings, Verdict
from counterfault.proxy.analysis.wording import finding, kind_of, level, tolerance_of
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.measurement.user_sample import UserSample

type Data = dict[str, Any]

VERSIONS = {"counterfault": __version__, "python": python_version()}


def as_data(verdict: Verdict) -> Data:
    """A verdict."""
    return {
        "result": str(verdict.result),
        "reason": verdict.reason,
        "provisional": verdict.provisional,
    }


def account(verdict: Verdict, found: Findings, users: UserSample) -> Data:
    """All numbers behind a verdict; effects, shares and levels are fractions, times seconds."""
    return {
        "verdict": as_data(verdict),
        "dose": _dose(found.dose),
        "users": _users(found.ratio, users),
        "metrics": [_metric(c) for c in found.comparisons],
        "versions": VERSIONS,
    }


def point(comparisons: tuple[Comparison, ...], recent: dict[str, Pair]) -> Data:
    """The metrics at one moment: `recent` is what each has counted since the point before."""
    return {c.metric.name: _estimate(c) | _sides(c, recent[c.metric.name]) for c in comparisons}


def _dose(dose: Dose) -> Data:
    return {"planned": dose.planned, "performed": dose.performed, "share": dose.share}


def _users(ratio: SampleRatio | None, users: UserSample) -> Data:
    return {
        **{str(cohort): users.estimate(cohort) for cohort in ENROLLED},
        "expected_share": ratio.share if ratio else None,
        "evidence": ratio.evidence if ratio else 0.0,
        "off": ratio.off if ratio else False,
    }


def _metric(c: Comparison) -> Data:
    kind, metric = kind_of(c.metric), c.metric
    return {
        "name": metric.name,
        "at": metric.at or kind,
        "kind": kind,
        "plain": c.plain,
        "no_data": c.no_data or None,
        "tolerance": tolerance_of(metric),
        "unit": "%" if metric.tolerance.relative else "pp",
        "allowed": metric.tolerance.value,
        **_estimate(c),
        "harmed": c.harmed,
        "within": c.within,
        "evidence": {
            "harm": _finite(c.evidence.harm),
            "within": _finite(c.evidence.within),
            "harm_at": c.threshold.harm,
            "within_at": c.threshold.within,
        },
        "detectable": _finite(c.detectable),
        "needed": needed(c),
        "clusters": c.clusters,
        **_sides(c, c.pair),
        "says": finding(c),
        "levels": [level(c, value) for value in c.levels],
    }


def _estimate(c: Comparison) -> Data:
    low, high = c.bounds or (None, None)
    return {"effect": _finite(c.effect), "lower": _finite(low), "upper": _finite(high)}


def _sides(c: Comparison, pair: Pair) -> Data:
    """Both cohorts in a pair of samples; of a plain metric, which has none, its last values."""
    samples, shares = (pair.control, pair.experiment), _shares(c.cohorts)
    levels = (
        c.levels
        if c.plain or pair is c.pair
        else [level_of(c.metric, *of) for of in zip(samples, shares, strict=True)]
    )
    return {
        str(cohort): {"events": sample.events, "bad": sample.bad, "level": _finite(level)}
        for cohort, sample, level in zip(ENROLLED, samples, levels, strict=True)
    }


def _shares(cohorts: Cohorts) -> tuple[float, float]:
    return cohorts.control, cohorts.experiment


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: what has no bound is null."""
    return value if value is not None and isfinite(value) else None
