"""Builds the record that reports are made of, of a run under way or of one in the history."""

from pydantic import ValidationError

from counterfault.proxy.analysis.verdict import Findings, conclude
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.models.run_record import (
    CohortShares,
    PhaseLengths,
    Point,
    RunRecord,
    TimelineEvent,
)
from counterfault.proxy.models.run_summary import MetricSamples, RunSummary
from counterfault.proxy.runs.history import History
from counterfault.proxy.runs.summary import run_summary
from counterfault.proxy.values.suggestions import unknown


class NotRecorded(Exception):
    """The history has no such experiment or run; the text lists what it has."""


def record(
    run: Run,
    configuration: dict[str, object],
    summary: RunSummary | None,
    samples: MetricSamples,
    timeline: list[TimelineEvent],
    points: list[Point],
) -> RunRecord:
    """Return the record of a run.

    Args:
        run: The run and its state.
        configuration: The experiment's file as it was read.
        summary: The last summary of the run; None before there is one.
        samples: The counts behind the summary.
        timeline: The changes of state, oldest first.
        points: The course of the run, oldest first.
    """
    known = summary or run_summary(conclude(run, Findings()), Findings(), UserSample())
    design = _experiment(configuration)
    return RunRecord(
        name=run.experiment,
        run=run.run,
        state=run.state,
        reason=str(run.reason),
        hypothesis=design.hypothesis if design else str(configuration.get("hypothesis", "")),
        phases=phase_lengths(design) if design else None,
        cohorts=cohort_shares(design) if design else None,
        confidence=design.guard.confidence if design else None,
        faults=[f"{r.fault.describe()} at {r.at}" for r in design.faults] if design else [],
        verdict=known.verdict,
        dose=known.dose,
        users=known.users,
        metrics=known.metrics,
        versions=known.versions,
        timeline=timeline,
        points=points,
        samples=samples,
        configuration=configuration,
        fault_counts=known.faults,
        listeners=known.listeners,
    )


def recorded(history: History, name: str, number: int | None = None) -> RunRecord:
    """Return a run as the history has it; without a number, the experiment's last run.

    Raises:
        NotRecorded: The history does not have it.
        HistoryError: The history cannot be read.
    """
    runs = history.load()
    numbers = sorted(n for e, n in runs if e == name)
    if not numbers:
        known = sorted({e for e, _ in runs})
        raise NotRecorded(unknown("experiment", name, known) if known else "no run is recorded yet")
    number = numbers[-1] if number is None else number
    if number not in numbers:
        had = ", ".join(map(str, numbers))
        raise NotRecorded(f"{name} has no run {number} on record; it has {had}")
    summary = history.summary(name, number)
    return record(
        runs[name, number],
        history.configuration(name, number),
        summary,
        summary.samples if summary else {},
        history.timeline(name, number),
        history.points(name, number),
    )


def phase_lengths(e: Experiment) -> PhaseLengths:
    """Return the planned lengths of an experiment's phases, in seconds."""
    return PhaseLengths(baseline=e.baseline, duration=e.duration, recovery=e.recovery)


def cohort_shares(e: Experiment) -> CohortShares:
    """Return the planned shares of an experiment's cohorts, 0 to 1."""
    return CohortShares(experiment=e.cohorts.experiment, control=e.cohorts.control)


def _experiment(configuration: dict[str, object]) -> Experiment | None:
    """Return the experiment that a recorded file defines.

    None: another version wrote it, and this one cannot read it.
    """
    try:
        return Experiment.model_validate(configuration)
    except ValidationError:
        return None
