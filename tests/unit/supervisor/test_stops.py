"""Between what the counts say and what the data planes are told there is one tick at most."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from counterfault.proxy.experiments.lifecycle import LIVE, Reason, State
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, SteadyKey
from tests.support.supervisor_world import SLOW, World

ONE = SLOW | {
    "baseline": "3s",
    "duration": "8s",
    "recovery": "3s",
    "steady_state": [{"name": "ok", "at": "inbound", "success_rate": {"drop": "1pp"}}],
}
# Events a replicate in the second before a tick: of control, and of the experiment.
seconds = st.tuples(*[st.integers(0, 30), st.integers(0, 30)] * 2)


def _count(world: World, came: tuple[int, ...]) -> None:
    """As workers would have told it by now."""
    run = world.supervisor.registry.runs["slow"]
    cells = [(cohort, cell) for cohort in ("control", "experiment") for cell in ("good", "bad")]
    for (cohort, cell), amount in zip(cells, came, strict=True):
        for replicate in range(64):
            key = SteadyKey("slow", run.epoch, "ok", cohort, replicate, cell)
            world.count(key, amount)
    world.count(DoseKey("slow", run.epoch, 0, FaultResult.PLANNED), 1)
    world.count(DoseKey("slow", run.epoch, 0, FaultResult.PERFORMED), 1)


def _told(world: World) -> State | None:
    """The state that the data planes were told last; None: they know no such run."""
    run = world.engine.runs.get("slow")
    return None if run is None else run.state


@settings(max_examples=25, deadline=None)
@given(st.lists(seconds, min_size=1, max_size=18))
@example([(20, 0, 20, 0)] * 5 + [(20, 0, 10, 10)])  # all is well, and then it is not
@example([(20, 0, 20, 0)] * 18)
def test_a_stop_is_pushed_in_the_tick_that_sees_the_evidence(script: list[tuple[int, ...]]) -> None:
    with TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.write(ONE)
        world.start()
        for came in script:
            before = world.supervisor.registry.runs["slow"]
            _count(world, came)
            world.pass_time(1)
            after = world.supervisor.registry.runs["slow"]
            found = world.supervisor.evaluator.findings(before)
            assert _told(world) == (after.state if after.state in LIVE else None)
            if before.state is State.RUNNING:
                assert found is not None
                harmed = any(c.harmed for c in found.comparisons)
                assert harmed == (after.reason == Reason.HARM)
                assert not harmed or after.state is State.STOPPED
            if before.state not in LIVE:
                assert after == before
        world.close()
