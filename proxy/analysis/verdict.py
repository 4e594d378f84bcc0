"""The verdict of a run on its hypothesis: held, refuted, inconclusive or invalid, and why."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from counterfault.proxy.analysis.comparison import (
    LEAST_CLUSTERS,
    LEAST_EVENTS,
    Comparison,
    unseen_share,
)
from counterfault.proxy.analysis.result import Result
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.analysis.sample_size import needed
from counterfault.proxy.analysis.wording import finding, worst
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
from counterfault.proxy.values.units import percent

# The share of planned faults that must have been performed for a hypothesis to be held.
LEAST_DOSE = 0.8


@dataclass(frozen=True, slots=True)
class Dose:
    """How many faults of the running state were planned, and how many were performed."""

    planned: int = 0
    performed: int = 0

    @property
    def share(self) -> float:
        """The share of planned faults that were performed, 0 to 1; 0 if none was planned."""
        return self.performed / self.planned if self.planned else 0.0


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of evaluating a run at one moment."""

    comparisons: tuple[Comparison, ...] = ()
    ratio: SampleRatio | None = None
    """The cohorts' users, of those met before the faults if there was a baseline."""
    newcomers: SampleRatio | None = None
    """The cohorts' users that were first met when the faults were on."""
    dose: Dose = Dose()
    differing: tuple[str, ...] = ()
    """Metrics in which the cohorts differed before any fault."""
    disturbed: tuple[str, ...] = ()
    """Metrics in which control got worse than its own baseline."""
    unrecovered: tuple[str, ...] = ()
    """Metrics that were still worse when recovery ended."""
    missing: tuple[Comparison, ...] = ()
    """Required metrics without data, where the faults are on or about to begin."""

    @property
    def held(self) -> bool:
        """Whether all metrics are within their tolerances, and enough faults were performed.

        A plain metric cannot be found within: it must have data, and must not be harmed.
        """
        within = bool(self.tested) and all(c.within for c in self.tested)
        watched = not any(c.no_data or c.harmed for c in self.comparisons)
        if self.newcomers is not None and self.newcomers.off:
            return False
        return within and watched and self.dose.share >= LEAST_DOSE

    @property
    def tested(self) -> tuple[Comparison, ...]:
        """The comparisons of metrics that can be tested: all but the plain ones."""
        return tuple(c for c in self.comparisons if not c.plain)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict and its reason; a provisional one is of a run that goes on and may change."""

    result: Result
    reason: str
    provisional: bool = False


def conclude(run: Run, findings: Findings) -> Verdict:
    """Return the verdict on a run, in any state, from its findings."""
    match run.state:
        case State.STOPPED:
            return _stopped(run.reason, findings)
        case State.DONE:
            return Verdict(*_finished(findings))
        case State.RUNNING | State.RECOVERING:
            return Verdict(*_so_far(findings), provisional=True)
        case State.PENDING | State.BASELINE:
            return Verdict(Result.INCONCLUSIVE, "no fault has been injected yet", provisional=True)
        case other:
            assert_never(other)


def _stopped(reason: str, found: Findings) -> Verdict:
    match reason:
        case Reason.HARM:
            return Verdict(*_harmed(found))
        case Reason.SAMPLE_RATIO if found.ratio is not None:
            return Verdict(Result.INVALID, _uneven(found.ratio))
        case Reason.BASELINE:
            return Verdict(Result.INVALID, f"{reason}: {_list(found.differing)}")
        case Reason.INTERFERENCE:
            said = f"{reason}: {_list(found.disturbed)}; something else is wrong, or faults spread"
            return Verdict(Result.INVALID, said)
        case Reason.NO_DATA if found.missing:
            said = "; ".join(finding(c) for c in found.missing)
            return Verdict(Result.INCONCLUSIVE, f"{reason}: {said}")
        case _:
            return Verdict(Result.INCONCLUSIVE, reason)


def _finished(found: Findings) -> tuple[Result, str]:
    if not found.dose.performed:
        return _without_a_fault(found)
    if any(c.harmed for c in found.comparisons):
        return _harmed(found)
    if found.unrecovered:
        still = f"still worse at the end of recovery, without faults: {_list(found.unrecovered)}"
        return Result.REFUTED, still
    return _so_far(found)


def _so_far(found: Findings) -> tuple[Result, str]:
    if found.ratio is not None and found.ratio.off:
        return Result.INVALID, _uneven(found.ratio)
    if any(c.harmed for c in found.comparisons):
        return _harmed(found)
    if not found.comparisons:
        return Result.INCONCLUSIVE, "no steady state is defined, so nothing was compared"
    if not found.dose.performed:
        return Result.INCONCLUSIVE, "no fault has been performed yet"
    if found.held:
        said = f"all within tolerance; {finding(worst(found.tested))}"
        return Result.HELD, said + _unseen(found) + _untested(found)
    return Result.INCONCLUSIVE, "; ".join(_lacking(found))


def _harmed(found: Findings) -> tuple[Result, str]:
    harmed = [c for c in found.comparisons if c.harmed]
    said = "; ".join(finding(c) for c in harmed)
    if not found.dose.performed:
        return Result.INVALID, f"the cohorts differ although no fault was performed: {said}"
    return Result.REFUTED, said


def _without_a_fault(found: Findings) -> tuple[Result, str]:
    if found.dose.planned:
        return Result.INVALID, f"none of the {found.dose.planned} faults due could be performed"
    return Result.INVALID, "no request of the experiment cohort matched the faults"


def _uneven(ratio: SampleRatio, which: str = "enrolled") -> str:
    users = ratio.control + ratio.experiment
    seen = percent(round(ratio.experiment / users, 4)) if users else "none"
    asked = percent(round(ratio.share, 4))
    return f"{seen} of {users} {which} users were in the experiment cohort, not {asked}"


def _lacking(found: Findings) -> Iterator[str]:
    """Yield the reasons why there is no result yet."""
    if found.dose.share < LEAST_DOSE:
        performed, planned = found.dose.performed, found.dose.planned
        yield f"only {performed} of {planned} faults due were performed"
    if found.newcomers is not None and found.newcomers.off:
        yield f"since the faults began, {_uneven(found.newcomers, 'new')}: clients took new ids"
    if not found.tested:
        yield "nothing is tested: without a label `replicate` there are only plain thresholds"
    for c in found.comparisons:
        if c.no_data or not (c.within or c.plain):
            yield f"{c.metric.name}: {_open(c)}"


def _unseen(found: Findings) -> str:
    """Say which share of users could have been harmed without being seen."""
    users = min((c.users for c in found.tested if c.users), default=0)
    share = unseen_share(users)
    if share is None:
        return ""
    return (
        f"; harm to fewer than 1 user in {1 / share:,.0f} could not be seen ({users:,} users met)"
    )


def _untested(found: Findings) -> str:
    plain = tuple(c.metric.name for c in found.comparisons if c.plain)
    return f"; not tested, only watched by a plain threshold: {_list(plain)}" if plain else ""


def _open(c: Comparison) -> str:
    if c.no_data:
        return c.no_data
    fewest = c.pair.fewest
    if fewest < LEAST_EVENTS:
        return f"only {fewest} events in a cohort"
    if c.clusters < LEAST_CLUSTERS:
        return f"a handful of users make up a cohort (as good as {c.clusters:.0f} equal ones)"
    users = c.users_needed
    if users is not None and 0 < c.users < users:
        return f"only {c.users:,} users in the smaller cohort, about {users:,} are needed"
    size = needed(c)
    more = f", about {size:,} are needed" if size is not None and size > fewest else ""
    return f"undecided after {fewest:,} events in the smaller cohort{more}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "unknown"
