"""Runs are committed before they are acted upon, and a stopped run stays stopped."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
from counterfault.proxy.runs.evaluation import Evaluation
from counterfault.proxy.runs.registry import RunRegistry
from counterfault.proxy.runs.store import RunStore

SIDECAR = {
    "service": "s",
    "listeners": {"inbound": {"listen": "127.0.0.1:1", "upstream": "http://a"}},
}


def raw(name: str = "x", **changes: Any) -> dict[str, Any]:
    return {
        "experiment": name,
        "state": "running",
        "duration": "30s",
        "baseline": "10s",
        "recovery": "5s",
        "cohorts": {"experiment": "1%", "control": "1%"},
        "faults": [{"at": "inbound", "error": 503}],
        **changes,
    }


def config(*experiments: dict[str, Any], **sidecar: Any) -> Config:
    settings = {**SIDECAR, **sidecar}
    return Config(
        Path("."),
        Sidecar.model_validate(settings),
        tuple(Experiment.model_validate(e) for e in experiments),
        settings,
        experiments,
    )


class World:
    """A registry whose clocks are turned by hand."""

    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.failures: list[str] = []
        fd = fault_budget.create()
        self.supervisor_side, self.worker_side = fault_budget.Budget(fd), fault_budget.Budget(fd, 0)
        self.directory = directory
        self.registry = self._open()

    def restart(self) -> RunRegistry:
        self.registry.store.close()
        self.registry = self._open()
        return self.registry

    def _open(self) -> RunRegistry:
        store = RunStore(
            self.directory, lambda: self.now, lambda where, _: self.failures.append(where)
        )
        registry = RunRegistry(store, self.supervisor_side, lambda: self.now, lambda: self.now)
        registry.open()
        return registry

    def state(self, name: str = "x") -> State:
        return self.registry.runs[name].state

    def advance(self, configuration: Config, *stopped: str, after: float = 0.0) -> list[str]:
        """The names of the experiments whose runs moved."""
        self.now += after
        evaluations = {name: Evaluation((Reason.OPERATOR,)) for name in stopped}
        return self.commit(self.registry.advance_all(configuration, evaluations))

    def edit(self, before: Config, after: Config) -> list[str]:
        return self.commit(self.registry.restart_edited(before, after))

    def commit(self, moves: list[Run]) -> list[str]:
        return [run.experiment for run in self.registry.commit((run, None) for run in moves)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.registry.store.close()


def on_disk(world: World) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(world.directory / "history.sqlite")) as db:
        return db.execute("SELECT experiment, run, state, reason FROM runs").fetchall()


def test_a_run_is_on_disk_in_the_state_it_is_in(world: World) -> None:
    world.advance(config(raw()))
    assert on_disk(world) == [("x", 1, "baseline", "")]
    world.advance(config(raw()), after=10)
    assert on_disk(world) == [("x", 1, "running", "")]
    assert [e.state for e in world.registry.store.timeline(world.registry.runs["x"])] == [
        "baseline",
        "running",
    ]


def test_a_paused_experiment_waits(world: World) -> None:
    world.advance(config(raw(state="paused")), after=100)
    assert world.state() is State.PENDING
    world.advance(config(raw()))
    assert world.state() is State.BASELINE


def test_pausing_stops_a_live_run_for_good(world: World) -> None:
    world.advance(config(raw()))
    world.advance(config(raw(state="paused")))
    assert world.state() is State.STOPPED
    world.advance(config(raw()))
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.PAUSED)


def test_a_stopped_run_stays_stopped_until_run_is_raised(world: World) -> None:
    world.advance(config(raw()), "x")
    world.restart()
    world.advance(config(raw()))
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.OPERATOR)
    world.advance(config(raw(run=2)))
    assert world.state() is State.BASELINE


def test_a_run_that_was_done_is_not_run_again(world: World) -> None:
    for _ in range(60):
        world.advance(config(raw()), after=1)
    assert world.state() is State.DONE
    world.restart()
    world.advance(config(raw()))
    assert world.state() is State.DONE


def test_a_run_found_unfinished_is_interrupted(world: World) -> None:
    world.advance(config(raw()))
    world.restart()
    world.advance(config(raw()))
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.INTERRUPTED)
    assert on_disk(world) == [("x", 1, "stopped", Reason.INTERRUPTED)]


def test_removing_the_file_stops_the_run_and_bringing_it_back_does_not_revive_it(
    world: World,
) -> None:
    world.advance(config(raw()))
    world.advance(config())
    assert on_disk(world) == [("x", 1, "stopped", Reason.REMOVED)]
    world.advance(config(raw()))
    assert world.state() is State.STOPPED


def test_past_not_after_nothing_starts_or_goes_on(world: World) -> None:
    world.advance(config(raw(not_after="1970-01-01T00:16:45Z")))
    assert world.state() is State.BASELINE
    world.advance(config(raw(not_after="1970-01-01T00:16:45Z")), after=5)
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.NOT_AFTER)


def test_the_kill_switch_survives_restarts_and_resume_starts_nothing(world: World) -> None:
    world.advance(config(raw("a")))
    world.registry.store.set_kill_switch(on=True)
    world.advance(config(raw("a"), raw("b")))
    assert world.restart().store.killed
    world.advance(config(raw("a"), raw("b"), raw("c")))
    world.registry.store.set_kill_switch(on=False)
    world.advance(config(raw("a"), raw("b"), raw("c")), after=1)
    assert {world.state(n) for n in "abc"} == {State.STOPPED}
    world.advance(config(raw("a", run=2), raw("b"), raw("c")))
    assert world.state("a") is State.BASELINE


def test_an_edit_takes_the_run_back_to_baseline(world: World) -> None:
    before, after = config(raw()), config(raw(faults=[{"at": "inbound", "error": 500}]))
    world.advance(before)
    world.advance(before, after=12)
    world.edit(before, after)
    world.advance(after, after=0)
    run = world.registry.runs["x"]
    assert (run.state, run.edits) == (State.BASELINE, 1)


def test_a_new_hypothesis_text_is_no_edit(world: World) -> None:
    before, after = config(raw()), config(raw(hypothesis="All is well", duration="40s"))
    world.advance(before)
    world.edit(before, after)
    assert world.registry.runs["x"].edits == 0


def test_a_change_of_the_unit_edits_every_live_run(world: World) -> None:
    before, after = config(raw()), config(raw(), unit=[{"cookie": "session"}])
    world.advance(before)
    world.edit(before, after)
    assert world.registry.runs["x"].edits == 1


def test_another_prometheus_edits_the_runs_that_ask_it(world: World) -> None:
    query = {"query": "$cohort", "drop": "5%"}
    asking = raw("a", steady_state=[{"name": "orders", "prometheus": query}])
    before, after = (config(asking, raw("b"), prometheus={"url": f"http://{n}"}) for n in "pq")
    world.advance(before)
    world.edit(before, after)
    assert [world.registry.runs[name].edits for name in "ab"] == [1, 0]


def test_max_faults_stops_the_run(world: World) -> None:
    limited = config(raw(baseline="0s", guard={"max_faults": 2}))
    world.advance(limited)
    slot = world.registry.statuses()["x"].slot
    assert [world.worker_side.take(slot, 10, 2) for _ in range(3)] == [True, True, False]
    world.advance(limited, after=1)
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.MAX_FAULTS)


def test_without_a_state_directory_no_run_starts_and_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    world = World(tmp_path / "state")
    world.advance(config(raw()))
    assert world.state() is State.PENDING
    assert "state" in world.registry.store.error
    assert world.failures == ["history"]


def test_a_corrupt_state_directory_starts_nothing_until_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    database = tmp_path / "state" / "history.sqlite"
    database.write_bytes(b"not a database, but long enough to look like one" * 100)
    world = World(tmp_path / "state")
    world.advance(config(raw()))
    assert world.state() is State.PENDING
    database.unlink()
    world.registry.open()
    world.advance(config(raw()))
    assert world.state() is State.BASELINE
    world.registry.store.close()


def test_a_stop_is_acted_upon_even_if_it_cannot_be_committed(world: World) -> None:
    world.advance(config(raw()))
    with closing(sqlite3.connect(world.directory / "history.sqlite")) as db:
        db.execute("DROP TABLE events")
    world.advance(config(raw()), "x")
    assert world.state() is State.STOPPED
    assert world.failures == ["history"]


def test_a_stop_while_the_directory_is_lost_is_committed_once_it_is_back(world: World) -> None:
    world.advance(config(raw()))
    with closing(sqlite3.connect(world.directory / "history.sqlite")) as db:
        db.execute("DROP TABLE events")
    world.registry.store.set_kill_switch(on=True)
    world.advance(config(raw()), "x")
    assert not world.registry.store.is_open
    world.registry.store.set_kill_switch(on=False)
    world.registry.open()
    assert on_disk(world) == [("x", 1, "stopped", Reason.OPERATOR)]
    assert not world.restart().store.killed


def test_outside_its_hours_a_run_waits_and_a_live_one_is_stopped(world: World) -> None:
    wanted = config(raw(guard={"hours": "00:00-00:20 UTC"}, duration="1h"))
    world.now = 25 * 3600.0
    world.advance(wanted)
    assert world.state() is State.PENDING
    world.now = 48 * 3600.0
    world.advance(wanted)
    assert world.state() is State.BASELINE
    world.advance(wanted, after=20 * 60)
    assert (world.state(), world.registry.runs["x"].reason) == (State.STOPPED, Reason.HOURS)


def test_a_read_that_fails_leaves_the_directory_in_use(world: World) -> None:
    world.advance(config(raw()))
    with closing(sqlite3.connect(world.directory / "history.sqlite")) as db:
        db.execute("DROP TABLE points")
    assert world.registry.store.points(world.registry.runs["x"]) == []
    assert world.failures == ["history"]
    assert (world.registry.store.is_open, world.registry.store.error) == (True, "")
    assert world.advance(config(raw(), raw("y"))) == ["y"]


def test_a_run_that_ended_while_the_directory_was_lost_is_written_once(world: World) -> None:
    world.advance(config(raw()))
    world.advance(config(raw()), "x")
    with closing(sqlite3.connect(world.directory / "history.sqlite")) as db:
        db.execute("DROP TABLE switches")
    world.registry.store.set_kill_switch(on=True)
    assert not world.registry.store.is_open
    world.registry.open()
    states = [e.state for e in world.registry.store.timeline(world.registry.runs["x"])]
    assert states == ["baseline", "stopped"]
    assert world.registry.store.killed


def test_a_raised_run_follows_the_one_before_in_one_step(world: World) -> None:
    world.advance(config(raw()))
    assert world.advance(config(raw(run=2))) == ["x", "x"]
    assert on_disk(world) == [("x", 1, "stopped", Reason.REMOVED), ("x", 2, "baseline", "")]
    assert (world.registry.runs["x"].run, world.state()) == (2, State.BASELINE)
