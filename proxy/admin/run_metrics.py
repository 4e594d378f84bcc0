"""The Prometheus metrics of runs: their samples, their users, and the findings."""

from collections.abc import Iterator
from itertools import product

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.analysis.verdict import Findings
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run, State
from counterfault.proxy.experiments.steady_state import Slow, SuccessRate
from counterfault.proxy.supervisor.sidecar_state import SidecarState

# The replicates that are exported. All 64 of the analysis would be four times as many series.
REPLICATES = 16

_NAN = float("nan")


def of_runs(sidecar: SidecarState) -> Iterator[Metric]:
    """Yield the metric families of all present runs; traffic adds no series."""
    yield _events(sidecar)
    yield _users(sidecar)
    yield _sample_ratio(sidecar)
    yield _verdicts(sidecar)
    yield _effects(sidecar)
    yield _evidence(sidecar)


def _runs(sidecar: SidecarState) -> Iterator[tuple[Experiment, Run, Findings]]:
    for e in sidecar.config.experiments:
        run = sidecar.reader.run(e)
        yield e, run, sidecar.reader.findings(run) or Findings()


def _events(sidecar: SidecarState) -> Metric:
    labels = ("service", "experiment", "run", "metric", "cohort", "replicate", "outcome")
    family = CounterMetricFamily(
        "counterfault_steady_state_events",
        "Events of a steady-state metric in the running phase of a run.",
        labels=labels,
    )
    for e, run, _ in _runs(sidecar):
        for metric in e.steady_state:
            if metric.prometheus is not None:  # Prometheus has it already
                continue
            pair = sidecar.reader.pair(run, metric, State.RUNNING)
            is_share = isinstance(metric.kind, SuccessRate | Slow)
            for cohort, sample in zip(ENROLLED, (pair.control, pair.experiment), strict=True):
                series = (sidecar.config.sidecar.service, e.name, str(e.run), metric.name)
                for outcome, events in zip(("good", "bad"), sample.outcomes, strict=True):
                    if outcome == "bad" and not is_share:
                        continue
                    folded = events.reshape(-1, REPLICATES).sum(axis=0).tolist()
                    for replicate, count in enumerate(folded):
                        family.add_metric((*series, cohort, str(replicate), outcome), count)
    return family


def _users(sidecar: SidecarState) -> Metric:
    family = GaugeMetricFamily(
        "counterfault_users",
        "Users that a run has met; an estimate past 16384.",
        labels=("service", "experiment", "cohort"),
    )
    for (e, run, _), cohort in product(_runs(sidecar), ENROLLED):
        users = sidecar.reader.users(run).estimate(cohort)
        family.add_metric((sidecar.config.sidecar.service, e.name, cohort), users)
    return family


def _sample_ratio(sidecar: SidecarState) -> Metric:
    family = GaugeMetricFamily(
        "counterfault_sample_ratio_evidence",
        "That the cohorts' numbers of users are not as their shares say: ln of an e-value.",
        labels=("service", "experiment"),
    )
    for e, _, found in _runs(sidecar):
        value = found.ratio.evidence if found.ratio else 0.0
        family.add_metric((sidecar.config.sidecar.service, e.name), value)
    return family


def _verdicts(sidecar: SidecarState) -> Metric:
    family = GaugeMetricFamily(
        "counterfault_verdict",
        "1 for the verdict on the present run, provisional while it goes on.",
        labels=("service", "experiment", "verdict"),
    )
    for e in sidecar.config.experiments:
        present = sidecar.reader.result(e.name)
        for result in Result:
            series = (sidecar.config.sidecar.service, e.name, result)
            family.add_metric(series, float(result == present))
    return family


def _effects(sidecar: SidecarState) -> Metric:
    family = GaugeMetricFamily(
        "counterfault_effect",
        "By how much the experiment cohort is worse off, as a fraction in the tolerance's unit,"
        " with anytime-valid bounds; NaN while too little is known.",
        labels=("service", "experiment", "metric", "bound"),
    )
    for e, _, found in _runs(sidecar):
        known = {c.metric.name: c for c in found.comparisons}
        for metric in e.steady_state:
            c = known.get(metric.name)
            low, high = (c.bounds if c else None) or (None, None)
            values = {"lower": low, "estimate": c.effect if c else None, "upper": high}
            for bound, value in values.items():
                series = (sidecar.config.sidecar.service, e.name, metric.name, bound)
                family.add_metric(series, _NAN if value is None else value)
    return family


def _evidence(sidecar: SidecarState) -> Metric:
    family = GaugeMetricFamily(
        "counterfault_evidence",
        "For harm beyond the tolerance and for an effect within it: ln of an e-value.",
        labels=("service", "experiment", "metric", "side"),
    )
    for e, _, found in _runs(sidecar):
        known = {c.metric.name: c.evidence for c in found.comparisons}
        for metric in e.steady_state:
            told = known.get(metric.name)
            for side, value in (("harm", told and told.harm), ("within", told and told.within)):
                series = (sidecar.config.sidecar.service, e.name, metric.name, side)
                family.add_metric(series, value or 0.0)
    return family
