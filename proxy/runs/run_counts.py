"""The counts of one run beside its metrics: its faults, and requests at the listeners it touches.

All of them belong to the run's present revision, as the events of its metrics do.
"""

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import PHASES, Run, State
from counterfault.proxy.measurement.keys import DoseKey, FaultResult
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.traffic import Traffic, total
from counterfault.proxy.models.run_traffic import (
    CohortTraffic,
    FaultCounts,
    ListenerTraffic,
    PhaseTraffic,
)

_NOTHING = CohortTraffic(requests=0, errors=0, p50=None, p99=None)
_NO_TRAFFIC = ListenerTraffic(control=_NOTHING, experiment=_NOTHING)


def touched_listeners(experiment: Experiment) -> list[str]:
    """Return the listeners at which an experiment has faults or metrics, by name."""
    named = {rule.at for rule in experiment.faults} | {m.at for m in experiment.steady_state}
    return sorted(named - {""})  # a metric in Prometheus has no listener


def listener_traffic(
    run: Run, experiment: Experiment, totals: Totals
) -> dict[str, ListenerTraffic]:
    """Return a run's requests at each listener that its experiment touches."""
    return {at: _at_listener(run, at, totals) for at in touched_listeners(experiment)}


def _at_listener(run: Run, listener: str, totals: Totals) -> ListenerTraffic:
    counted: dict[State, list[Traffic | None]] = {}
    for phase in PHASES:
        epoch = run.epoch_of(phase)
        both = [totals.traffic(run.experiment, epoch, listener, cohort) for cohort in ENROLLED]
        if any(both):
            counted[phase] = both
    if not counted:
        return _NO_TRAFFIC
    control, experiment = (
        _cohort_traffic(total(each for each in parts if each is not None))
        for parts in zip(*counted.values(), strict=True)
    )
    phases = {
        str(phase): PhaseTraffic(control=_cohort_traffic(c), experiment=_cohort_traffic(e))
        for phase, (c, e) in counted.items()
    }
    return ListenerTraffic(control=control, experiment=experiment, phases=phases)


def _cohort_traffic(counted: Traffic | None) -> CohortTraffic:
    if counted is None or not counted.requests:
        return _NOTHING
    return CohortTraffic(
        requests=counted.requests,
        errors=counted.errors,
        p50=counted.quantile(0.5),
        p99=counted.quantile(0.99),
    )


def fault_counts(run: Run, experiment: Experiment, totals: Totals) -> list[FaultCounts]:
    """Return what came of a run's faults, by rule."""
    return [_of_rule(run, experiment, index, totals) for index in range(len(experiment.faults))]


def _of_rule(run: Run, experiment: Experiment, index: int, totals: Totals) -> FaultCounts:
    rule = experiment.faults[index]
    epochs = [run.epoch_of(phase) for phase in PHASES]

    def count(result: FaultResult) -> int:
        keys = (DoseKey(run.experiment, epoch, index, result) for epoch in epochs)
        return sum(int(totals.get(key)) for key in keys)

    return FaultCounts(
        at=rule.at,
        fault=rule.fault.name,
        dose=rule.dose.share if rule.dose.limit is None else str(rule.dose),
        when=rule.when,
        planned=count(FaultResult.PLANNED),
        performed=count(FaultResult.PERFORMED),
        overflow=count(FaultResult.OVERFLOW),
        failed=count(FaultResult.FAILED),
    )
