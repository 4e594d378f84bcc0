"""The runs on disk: only committed states are acted upon; a stopped run stays stopped."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from counterfault.proxy.experiments.lifecycle import Run, State
from counterfault.proxy.models.run_record import Point, Snapshot, TimelineEvent
from counterfault.proxy.models.run_summary import RecordedSummary

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    experiment TEXT NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    edits INTEGER NOT NULL,
    configuration TEXT NOT NULL,
    started REAL NOT NULL,
    changed REAL NOT NULL,
    PRIMARY KEY (experiment, run)
);
CREATE TABLE IF NOT EXISTS events (
    at REAL NOT NULL,
    experiment TEXT NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS accounts (
    experiment TEXT NOT NULL,
    run INTEGER NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (experiment, run)
);
CREATE TABLE IF NOT EXISTS points (
    experiment TEXT NOT NULL,
    run INTEGER NOT NULL,
    at REAL NOT NULL,
    point TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS points_of_run ON points (experiment, run);
CREATE TABLE IF NOT EXISTS switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

FILE = "history.sqlite"
# How long to wait for another process's transaction, in seconds.
_PATIENCE = 2.0


class HistoryError(Exception):
    """The state directory cannot be used; no run starts without it."""


class History:
    """SQLite under `state_dir`; each commit is on disk before it returns."""

    def __init__(self, directory: Path, *, reading: bool = False) -> None:
        """Open the database; with `reading` read-only, so that another process can write."""
        try:
            self._db = _to_read(directory) if reading else _to_write(directory)
        except (OSError, sqlite3.Error) as e:
            raise HistoryError(f"state_dir {directory}: {e}") from e

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def load(self) -> dict[tuple[str, int], Run]:
        """Return every run in the history, by experiment and number."""
        rows = self._rows("SELECT experiment, run, state, reason, edits FROM runs")
        return {(e, n): Run(e, n, State(s), reason, edits) for e, n, s, reason, edits in rows}

    def save(
        self,
        run: Run,
        configuration: Mapping[str, object],
        wall: float,
        summary: RecordedSummary | None = None,
    ) -> None:
        """Commit a run's state with its configuration and summary; `wall` in Unix seconds."""
        with self._transaction(f"cannot commit {run.experiment}") as cursor:
            cursor.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (experiment, run) DO UPDATE SET state = excluded.state,"
                " reason = excluded.reason, edits = excluded.edits,"
                " configuration = excluded.configuration, changed = excluded.changed",
                (
                    run.experiment,
                    run.run,
                    run.state,
                    run.reason,
                    run.edits,
                    json.dumps(configuration),
                    wall,
                    wall,
                ),
            )
            cursor.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (wall, run.experiment, run.run, run.state, run.reason),
            )
            if summary is not None:
                _put_summary(cursor, run, summary)

    def write_snapshots(
        self,
        points: Iterable[tuple[Run, Snapshot]],
        summaries: Iterable[tuple[Run, RecordedSummary]],
        wall: float,
    ) -> None:
        """Commit points and summaries of live runs; `wall` is their time, in Unix seconds."""
        with self._transaction("cannot commit samples") as cursor:
            for run, summary in summaries:
                _put_summary(cursor, run, summary)
            for run, point in points:
                cursor.execute(
                    "INSERT INTO points VALUES (?, ?, ?, ?)",
                    (run.experiment, run.run, wall, point.as_json(ascii_only=True)),
                )

    def configuration(self, experiment: str, run: int) -> dict[str, object]:
        """Return the experiment's file as of a run's last move; empty for an unknown run."""
        rows = self._rows(
            "SELECT configuration FROM runs WHERE experiment = ? AND run = ?", experiment, run
        )
        found: dict[str, object] = json.loads(rows[0][0]) if rows else {}
        return found

    def summary(self, experiment: str, run: int) -> RecordedSummary | None:
        """Return the last summary of a run.

        None: there is none, or it is from a version whose summaries cannot be read.
        """
        rows = self._rows(
            "SELECT account FROM accounts WHERE experiment = ? AND run = ?", experiment, run
        )
        try:
            return RecordedSummary.from_json(rows[0][0]) if rows else None
        except ValueError:
            return None

    def points(self, experiment: str, run: int) -> list[Point]:
        """Return the points of a run, oldest first."""
        rows = self._rows(
            "SELECT at, point FROM points WHERE experiment = ? AND run = ? ORDER BY rowid",
            experiment,
            run,
        )
        return [point for at, text in rows if (point := _point(at, text)) is not None]

    def killed(self) -> bool:
        """Whether the kill switch is on."""
        return bool(self._rows("SELECT value FROM switches WHERE name = 'kill'")[0][0])

    def set_killed(self, on: bool) -> None:
        """Commit the kill switch. Raises HistoryError."""
        try:
            self._db.execute("UPDATE switches SET value = ? WHERE name = 'kill'", (int(on),))
        except sqlite3.Error as e:
            raise HistoryError(f"cannot commit the kill switch: {e}") from e

    def timeline(self, experiment: str, run: int) -> list[TimelineEvent]:
        """Return the changes of a run's state, oldest first."""
        rows = self._rows(
            "SELECT at, state, reason FROM events WHERE experiment = ? AND run = ? ORDER BY rowid",
            experiment,
            run,
        )
        return [
            TimelineEvent(at=at, state=State(state), reason=reason) for at, state, reason in rows
        ]

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as e:
            raise HistoryError(f"cannot read: {e}") from e

    @contextmanager
    def _transaction(self, failure: str) -> Iterator[sqlite3.Cursor]:
        try:
            with closing(self._db.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
        except sqlite3.Error as e:
            self._roll_back()
            raise HistoryError(f"{failure}: {e}") from e

    def _roll_back(self) -> None:
        try:
            self._db.execute("ROLLBACK")
        except sqlite3.Error:
            return  # there was no transaction to take back


def _to_write(directory: Path) -> sqlite3.Connection:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(directory / FILE, isolation_level=None, timeout=_PATIENCE)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA)
        # Opening reads little: a write shows a read-only or damaged file now, not mid-run.
        db.execute("INSERT OR IGNORE INTO switches VALUES ('kill', 0)")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _to_read(directory: Path) -> sqlite3.Connection:
    path = directory / FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {FILE} in it")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _asked(uri)
    except sqlite3.OperationalError:
        # A database that no process has open has no write-ahead log beside it, and opening makes
        # one, which fails where we may not write. Without a log no process writes: the file can be
        # read as one that does not change.
        if path.with_name(f"{FILE}-wal").exists():
            raise
        return _asked(f"{uri}&immutable=1")


def _asked(uri: str) -> sqlite3.Connection:
    """Return a connection that has answered a query: opening alone reads nothing."""
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)
    try:
        db.execute("SELECT 1 FROM runs")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _point(at: float, text: str) -> Point | None:
    """Return a recorded point; None if it is from a version whose points cannot be read."""
    try:
        return Point(at=at, **vars(Snapshot.from_json(text)))
    except ValueError:
        return None


def _put_summary(cursor: sqlite3.Cursor, run: Run, summary: RecordedSummary) -> None:
    cursor.execute(
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)",
        (run.experiment, run.run, summary.as_json(ascii_only=True)),
    )
