"""A run as reports tell it, whether its sidecar lives or only left a history."""

from pydantic import ValidationError

from counterfault.proxy.analysis.verdict import Findings, conclude
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.runs.history import Data, History
from counterfault.proxy.runs.summary import account
from counterfault.proxy.values.suggestions import unknown

_ACCOUNT = ("verdict", "dose", "users", "metrics", "versions")


class NotRecorded(Exception):
    """The history knows no such experiment or run; the text says which it knows."""


def record(
    run: Run, configuration: Data, kept: Data | None, timeline: list[Data], points: list[Data]
) -> Data:
    """A run with its design; `kept` is its account with samples, None before there is one."""
    told = kept or account(conclude(run, Findings()), Findings(), UserSample())
    return {
        "name": run.experiment,
        "run": run.run,
        "state": str(run.state),
        "reason": str(run.reason),
        **_design(configuration),
        **{key: told[key] for key in _ACCOUNT},
        "timeline": timeline,
        "points": points,
        "samples": told.get("samples", {}),
        "configuration": configuration,
    }


def recorded(history: History, name: str, number: int | None = None) -> Data:
    """A run as the history has it; without a number, the last one. Raises NotRecorded."""
    runs = history.load()
    numbers = sorted(n for e, n in runs if e == name)
    if not numbers:
        known = sorted({e for e, _ in runs})
        raise NotRecorded(unknown("experiment", name, known) if known else "no run is recorded yet")
    number = numbers[-1] if number is None else number
    if number not in numbers:
        had = ", ".join(map(str, numbers))
        raise NotRecorded(f"{name} has no run {number} on record; it has {had}")
    return record(
        runs[name, number],
        history.configuration(name, number),
        history.account(name, number),
        history.timeline(name, number),
        history.points(name, number),
    )


def _design(configuration: Data) -> Data:
    """What was to be done; what another version wrote may not be readable any more."""
    try:
        e = Experiment.model_validate(configuration)
    except ValidationError:
        nothing: Data = {"phases": None, "cohorts": None, "confidence": None, "faults": []}
        return {"hypothesis": str(configuration.get("hypothesis", "")), **nothing}
    return {
        "hypothesis": e.hypothesis,
        "phases": {"baseline": e.baseline, "duration": e.duration, "recovery": e.recovery},
        "cohorts": {"experiment": e.cohorts.experiment, "control": e.cohorts.control},
        "confidence": e.guard.confidence,
        "faults": [f"{rule.fault.describe()} at {rule.at}" for rule in e.faults],
    }
