"""The state machine of a run: every state, event and transition.

    pending ──▶ baseline ──▶ running ──▶ recovering ──▶ done
                    ▲           │             │
                    └── edited ─┴─────────────┘      any of them ──▶ stopped

Time is an argument, in seconds of one monotonic clock. Why a run has to stop is an argument, too:
`analysis.monitor` decides it by the metrics, `runs.registry` by limits and operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from counterfault.proxy.experiments.experiment import Experiment


class State(StrEnum):
    """The states of a run: in baseline and recovering there are no faults, in running there are."""

    PENDING = "pending"
    BASELINE = "baseline"
    RUNNING = "running"
    RECOVERING = "recovering"
    DONE = "done"
    STOPPED = "stopped"


class Event(StrEnum):
    """What can happen to a run.

    `ELAPSED`: the time of its state has passed; `HELD`: its hypothesis holds, and its file says
    that the faults end then; `EDITED`: its counts were discarded, since what they mean has changed.
    """

    START = "start"
    ELAPSED = "elapsed"
    HELD = "held"
    EDITED = "edited"
    STOP = "stop"


class Reason(StrEnum):
    """Why a run was stopped, as users read it."""

    HARM = "a metric got worse than its tolerance allows"
    SAMPLE_RATIO = "the cohorts' numbers of users are not as their shares say"
    BASELINE = "the cohorts differed before any fault"
    INTERFERENCE = "control got worse than its own baseline"
    NO_DATA = "a required metric had no data"
    OPERATOR = "stopped by an operator"
    KILL_SWITCH = "the kill switch is on"
    PAUSED = "its file says paused"
    REMOVED = "its file was removed"
    NOT_AFTER = "its not_after has passed"
    HOURS = "it is outside guard.hours"
    INTERRUPTED = "the supervisor was restarted"
    LEASE = "the supervisor stood still for longer than the lease"
    MAX_FAULTS = "guard.max_faults is reached"


LIVE = frozenset({State.BASELINE, State.RUNNING, State.RECOVERING})
OVER = frozenset({State.DONE, State.STOPPED})
PHASES = (State.BASELINE, State.RUNNING, State.RECOVERING)
"""The live states in the order in which a run passes through them."""

# An event without an entry does not move the run; no event leads out of done and stopped.
NEXT: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.START): State.BASELINE,
    (State.BASELINE, Event.ELAPSED): State.RUNNING,
    (State.RUNNING, Event.ELAPSED): State.RECOVERING,
    (State.RUNNING, Event.HELD): State.RECOVERING,
    (State.RECOVERING, Event.ELAPSED): State.DONE,
    (State.BASELINE, Event.EDITED): State.BASELINE,
    (State.RUNNING, Event.EDITED): State.BASELINE,
    (State.RECOVERING, Event.EDITED): State.BASELINE,
    (State.PENDING, Event.STOP): State.STOPPED,
    (State.BASELINE, Event.STOP): State.STOPPED,
    (State.RUNNING, Event.STOP): State.STOPPED,
    (State.RECOVERING, Event.STOP): State.STOPPED,
}


class Epoch(str):
    """`run.revision.state`, such as `2.0.running`: a stretch of time whose counts belong together.

    A string, since it is part of counter keys and messages: it hashes as fast, and JSON, SQLite and
    Lua take it as it is.
    """

    __slots__ = ()

    @classmethod
    def of(cls, revision: str, state: State) -> "Epoch":
        """Return the epoch of a revision, such as `2.0`, in a state."""
        return cls(f"{revision}.{state}")

    @property
    def revision(self) -> str:
        """The run and its revision, such as `2.0`: what is comparable lies within one."""
        return self.rpartition(".")[0]

    @property
    def state(self) -> State:
        """The state of the run. Raises ValueError if the string does not end with one."""
        return State(self.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an experiment.

    Attributes:
        experiment: The name of the experiment.
        run: The number of the run, from 1.
        state: Its state.
        reason: Why it was stopped; empty if it was not.
        edits: How often the run was edited, and its counts were discarded.
        spent: Seconds for which its faults were on before the present state.
        entered: When the present state began, in seconds of the monotonic clock.
    """

    experiment: str
    run: int
    state: State = State.PENDING
    reason: str = ""
    edits: int = 0
    spent: float = 0.0
    entered: float = 0.0

    @property
    def revision(self) -> str:
        """The number of the run and of its edits, such as `2.0`.

        Counts of one revision are comparable; an edit and another run begin a new one.
        """
        return f"{self.run}.{self.edits}"

    @property
    def epoch(self) -> Epoch:
        """The epoch that the run is in now."""
        return self.epoch_of(self.state)

    def epoch_of(self, state: State) -> Epoch:
        """The epoch of another state of the same revision."""
        return Epoch.of(self.revision, state)

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """All epochs of the present revision."""
        return tuple(self.epoch_of(state) for state in State)


def advance(run: Run, event: Event, now: float, reason: str = "") -> Run:
    """Return the run after an event at `now`, in seconds of the monotonic clock.

    The run is unchanged where the table has no transition.
    """
    target = NEXT.get((run.state, event))
    if target is None:
        return run
    spent = run.spent + (now - run.entered if run.state is State.RUNNING else 0.0)
    edits = run.edits + (event is Event.EDITED)
    return replace(run, state=target, reason=reason, edits=edits, spent=spent, entered=now)


def remaining(run: Run, experiment: Experiment, now: float) -> float | None:
    """Return the seconds until the present state ends by itself; None if it does not."""
    match run.state:
        case State.BASELINE:
            length = experiment.baseline
        case State.RUNNING:
            length = experiment.duration - run.spent
        case State.RECOVERING:
            length = experiment.recovery
        case _:
            return None
    return max(0.0, run.entered + length - now)


def tick(
    run: Run, experiment: Experiment, now: float, stops: Sequence[str] = (), held: bool = False
) -> Run:
    """Return the run at `now`, in seconds of the monotonic clock.

    Args:
        run: The run before.
        experiment: Its experiment, with the lengths of the states.
        now: The present time.
        stops: Why the run has to be stopped, the most important reason first; empty: it has not.
        held: Whether the hypothesis holds, which ends the faults if the experiment says so.
    """
    if stops:
        return advance(run, Event.STOP, now, stops[0])
    if held and experiment.guard.stop_when_held:
        run = advance(run, Event.HELD, now)
    while remaining(run, experiment, now) == 0.0:
        run = advance(run, Event.ELAPSED, now)
    return run
