"""A simulation goes on where it was stopped, and never mixes runs of different code."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.simulate import run, runner
from tests.simulate.met import MET, NOT_ENOUGH, NOT_MET, Said, needed_runs, verdict
from tests.simulate.runner import CELLS, Cell, counted, estimate, is_done, played, target
from tests.simulate.state import ROOT, Batch, Origin, StaleState, State

HERE = Origin(seed=1, sources="abc", numpy="2", commit="c0ffee")
CELL = next(cell for cell in CELLS if cell.key.startswith("harm: outage"))


def test_runs_are_kept_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    state = State.opened(path, HERE)
    state.add(Batch("a", 3, 1.5, [(7, 0), (8, 0)]))
    state.add(Batch("a", 0, 0.5, [(5, 0)]))
    again = State.opened(path, HERE)
    assert again.outcomes("a") == [(5, 0), (7, 0), (8, 0)]
    assert again.missing("a", 6) == [1, 2, 5]
    assert again.seconds("a") == pytest.approx(2 / 3)
    assert again.seconds("b") is None


def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    State.opened(path, HERE).add(Batch("a", 0, 1.0, [(1,)]))
    whole = path.read_text()
    path.write_text(whole + '["a",1,1.0,[[2')
    again = State.opened(path, HERE)
    assert again.outcomes("a") == [(1,)]
    assert path.read_text() == whole
    again.add(Batch("a", 1, 1.0, [(3,)]))
    assert State.opened(path, HERE).outcomes("a") == [(1,), (3,)]


@pytest.mark.parametrize("change", [{"seed": 2}, {"sources": "def"}, {"numpy": "3"}])
def test_runs_of_other_code_are_refused_or_begun_anew(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "state.jsonl"
    State.opened(path, HERE).add(Batch("a", 0, 1.0, [(1,)]))
    other = replace(HERE, commit="beef", **change)
    with pytest.raises(StaleState, match=r"has runs of commit c0ffee and seed 1.*--anew"):
        State.opened(path, other)
    assert State.opened(path, other, anew=True).runs("a") == 0
    assert State.opened(path, other).origin == other
    assert '"c0ffee"' in (tmp_path / "state.jsonl.old").read_text()


def test_a_commit_that_changed_nothing_that_decides_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    State.opened(path, HERE).add(Batch("a", 0, 1.0, [(1,)]))
    assert State.opened(path, replace(HERE, commit="beef")).runs("a") == 1


def test_what_is_no_state_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    path.write_text("hello\n")
    with pytest.raises(StaleState, match="is not a state file"):
        State.opened(path, HERE)


def test_this_checkout_has_an_origin() -> None:
    here = Origin.here(4)
    assert here.seed == 4
    assert len(here.sources) == 16
    assert here == Origin.here(4)


def test_a_cell_is_met_with_1000_runs_and_5000_where_the_share_is_close() -> None:
    assert verdict(1000, [Said(30, 1000, 0.05)]) == MET
    assert verdict(999, [Said(30, 999, 0.05)]) == NOT_ENOUGH
    # The 1 % level: 67 of 1,000 are not unlikely at 5 %, 68 are.
    assert Said(67, 1000, 0.05).is_sound
    assert not Said(68, 1000, 0.05).is_sound
    assert verdict(1000, [Said(68, 1000, 0.05)]) == NOT_MET
    assert verdict(20, [Said(9, 20, 0.05)]) == NOT_MET
    for hits in (40, 50, 60):
        assert needed_runs([Said(hits, 1000, 0.05)]) == 5000
        assert verdict(1000, [Said(hits, 1000, 0.05)]) == NOT_ENOUGH
        assert verdict(5000, [Said(5 * hits, 5000, 0.05)]) == (MET if hits < 55 else NOT_MET)
    for hits in (0, 39, 61):
        assert needed_runs([Said(hits, 1000, 0.05)]) == 1000
    assert needed_runs([Said(5, 100, 0.05)]) == 1000
    assert verdict(1000, [Said(0, 1000, 0.0)]) == MET
    assert verdict(1000, [Said(1, 1000, 0.0)]) == NOT_MET
    assert verdict(1000, [], in_time=False) == NOT_MET


def test_the_target_of_a_cell_follows_its_runs() -> None:
    cell = next(cell for cell in CELLS if cell.key.startswith("boundary"))
    state = State(None, HERE)
    assert target(cell, state, 5000) == 1000
    assert not is_done([cell], state, 5000)
    size = len(played(cell, 1, 0))
    state.add(Batch(cell.key, 0, 1.0, [(i % 20 == 0,) + (0,) * (size - 1) for i in range(1000)]))
    assert sum(counted(cell, state.outcomes(cell.key))["refuted"]) == 50
    assert target(cell, state, 5000) == 5000
    assert is_done([cell], state, 1000)


def test_an_estimate_runs_each_cell_a_few_times() -> None:
    (seconds,) = estimate([CELL], State(None, HERE), runs=2).values()
    assert 0 < seconds < 5


def _arguments(state: Path, *more: str) -> list[str]:
    return ["--only", CELL.key, "--state", str(state), *more]


def _outcomes(state: Path) -> list[tuple[int, ...]]:
    lines = state.read_text().splitlines()[1:]
    return [tuple(outcome) for line in lines for outcome in json.loads(line)[3]]


def test_a_stopped_simulation_goes_on_with_the_same_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "state.jsonl", []

    def interrupted(cell: Cell, seed: int, number: int) -> tuple[int, ...]:
        calls.append(number)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return played(cell, seed, number)

    arguments = _arguments(path, "--jobs", "1", "--runs", "15", "--seed", "5")
    with monkeypatch.context() as patched:
        patched.setattr(runner, "played", interrupted)
        assert run.main(arguments) == 130
    printed = capsys.readouterr()
    assert "seed 5" in printed.err
    assert "the runs so far are in" in printed.err
    assert "not enough runs" in printed.out
    first = path.read_text()
    assert 5 <= len(_outcomes(path)) < 12
    assert run.main(arguments) == 0
    assert path.read_text().startswith(first)
    assert sorted(_outcomes(path)) == sorted(played(CELL, 5, number) for number in range(15))
    with pytest.raises(SystemExit):
        run.main(_arguments(path, "--seed", "6"))
    assert "begin anew with --anew" in capsys.readouterr().err


def test_several_processes_make_the_same_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    arguments = _arguments(path, "--jobs", "2", "--runs", "3")
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulate.run", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(_outcomes(path)) == sorted(played(CELL, 1, number) for number in range(3))
