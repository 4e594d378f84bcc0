"""The history read by another process: without writing, and beside one that writes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from counterfault.proxy.admin.views import report
from counterfault.proxy.runs.history import FILE, History, HistoryError
from counterfault.proxy.runs.record import NotRecorded, recorded
from tests.support.supervisor_world import SLOW, World

ROOT = Path(__file__).parents[3]
# Root may write anywhere, so it becomes somebody else.
READ = """
import os, sys
from pathlib import Path
from counterfault.proxy.runs.history import History
from counterfault.proxy.runs.record import recorded
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
history = History(Path(sys.argv[1]), reading=True)
print(recorded(history, "slow").name)
history.close()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "config")
    world.write(SLOW)
    world.start(tmp_path / "state")
    world.pass_time(90)
    yield world
    world.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if not p.name.endswith("-shm")}


def test_the_history_tells_what_the_sidecar_tells(world, tmp_path):
    history = History(tmp_path / "state", reading=True)
    found = recorded(history, "slow")
    told = report(world.supervisor, "slow")
    assert found.timeline == told.timeline
    assert found.points == told.points
    assert vars(found).keys() == vars(told).keys()
    assert (found.state, found.configuration) == ("running", SLOW)
    history.close()


def test_reading_changes_nothing_and_lets_the_sidecar_write(world, tmp_path):
    before = contents(tmp_path / "state")
    history = History(tmp_path / "state", reading=True)
    assert len(history.points("slow", 1)) == len(world.supervisor.reader.points("slow"))
    with pytest.raises(HistoryError, match="readonly"):
        history.set_killed(True)
    assert contents(tmp_path / "state") == before
    world.pass_time(20)
    assert world.supervisor.reader.error == ""
    assert len(history.points("slow", 1)) == len(world.supervisor.reader.points("slow"))
    history.close()


def test_a_history_that_was_cut_off_is_read_with_its_log(world, tmp_path):
    """The files of a process that was killed: nothing has been put in order."""
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    assert (tmp_path / "copy" / f"{FILE}-wal").stat().st_size
    (tmp_path / "copy" / f"{FILE}-shm").unlink()
    history = History(tmp_path / "copy", reading=True)
    assert recorded(history, "slow").points == world.supervisor.reader.points("slow")
    history.close()


def test_a_directory_that_cannot_be_written_can_be_read(world, tmp_path):
    world.close()
    assert [p.name for p in (tmp_path / "state").iterdir()] == [FILE]
    with TemporaryDirectory() as directory:
        shutil.copy(tmp_path / "state" / FILE, directory)
        os.chmod(directory, 0o555)
        command = [sys.executable, "-c", READ, directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == ("slow\n", "")


def test_a_directory_without_a_history_is_told_and_none_is_made(tmp_path):
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(HistoryError, match=f"{directory}.*there is no {FILE} in it"):
            History(directory, reading=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_history_is_told(tmp_path):
    (tmp_path / FILE).write_text("this is not a database, however long it may be\n" * 100)
    with pytest.raises(HistoryError, match="not a database"):
        History(tmp_path, reading=True)
    (tmp_path / FILE).unlink()
    sqlite3.connect(tmp_path / FILE).close()
    with pytest.raises(HistoryError, match="no such table"):
        History(tmp_path, reading=True)


def test_runs_that_never_were_are_told_with_those_that_were(world, tmp_path):
    history = History(tmp_path / "state", reading=True)
    with pytest.raises(NotRecorded, match="slow has no run 3 on record; it has 1"):
        recorded(history, "slow", 3)
    with pytest.raises(NotRecorded, match="unknown experiment 'slov'; known: slow; did you mean"):
        recorded(history, "slov")
    history.close()
    History(tmp_path / "new").close()
    history = History(tmp_path / "new", reading=True)
    with pytest.raises(NotRecorded, match="no run is recorded yet"):
        recorded(history, "slow")
    history.close()


def test_what_another_version_wrote_is_told_as_far_as_it_can_be(world, tmp_path):
    world.close()
    with sqlite3.connect(tmp_path / "state" / FILE) as db:
        db.execute("""UPDATE runs SET configuration = '{"hypothesis": "Old", "spell": 1}'""")
    db.close()
    history = History(tmp_path / "state", reading=True)
    found = recorded(history, "slow")
    assert (found.hypothesis, found.phases, found.faults) == ("Old", None, [])
    history.close()


def test_a_summary_without_the_fields_of_today_is_read(world, tmp_path):
    world.close()
    with sqlite3.connect(tmp_path / "state" / FILE) as db:
        ((text,),) = db.execute("SELECT account FROM accounts")
        summary = json.loads(text)
        for metric in summary["metrics"]:
            del metric["plain"], metric["no_data"]
        del summary["samples"]
        summary["metrics"][0]["spell"] = 1
        db.execute("UPDATE accounts SET account = ?", (json.dumps(summary),))
    db.close()
    history = History(tmp_path / "state", reading=True)
    found = recorded(history, "slow")
    assert [(m.name, m.plain, m.no_data) for m in found.metrics] == [
        (m["name"], False, None) for m in summary["metrics"]
    ]
    assert found.samples == {}
    history.close()


def test_a_summary_that_cannot_be_read_leaves_the_rest_of_the_record(world, tmp_path):
    world.close()
    with sqlite3.connect(tmp_path / "state" / FILE) as db:
        db.execute("""UPDATE accounts SET account = '{"verdict": "so so"}'""")
        db.execute("UPDATE points SET point = '{}' WHERE rowid = 1")
        ((points,),) = db.execute("SELECT count(*) FROM points")
    db.close()
    history = History(tmp_path / "state", reading=True)
    found = recorded(history, "slow")
    assert (found.state, found.verdict.result, found.metrics) == ("running", "inconclusive", [])
    assert len(found.points) == points - 1
    history.close()
