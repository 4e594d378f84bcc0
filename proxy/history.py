"""The runs on disk: what was committed is acted upon, and a stopped run stays stopped."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from proxy.guard import Run, State

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

type Data = dict[str, Any]
"""What can be written as JSON."""


class HistoryError(Exception):
    """The state directory cannot be used; no run starts without it."""


class History:
    """SQLite under `state_dir`; each commit is on disk before it returns."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                directory / "history.sqlite", isolation_level=None, timeout=2.0
            )
        except (OSError, sqlite3.Error) as e:
            raise HistoryError(f"state_dir {directory}: {e}") from e
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            # Opening reads little: a write shows a read-only or damaged file now, not mid-run.
            self._db.execute("INSERT OR IGNORE INTO switches VALUES ('kill', 0)")
        except sqlite3.Error as e:
            self._db.close()
            raise HistoryError(f"state_dir {directory}: {e}") from e

    def close(self) -> None:
        self._db.close()

    def load(self) -> dict[tuple[str, int], Run]:
        """Every run there ever was, by experiment and number."""
        rows = self._rows("SELECT experiment, run, state, reason, edits FROM runs")
        return {(e, n): Run(e, n, State(s), reason, edits) for e, n, s, reason, edits in rows}

    def save(self, run: Run, configuration: Data, wall: float, account: Data | None = None) -> None:
        """Commit a run's state with its configuration and account; `wall` in Unix seconds."""
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
            if account is not None:
                _put_account(cursor, run, account)

    def note(self, notes: Iterable[tuple[Run, Data, Data]], wall: float) -> None:
        """Commit what runs under way have come to: for each its account and a point in time."""
        with self._transaction("cannot commit samples") as cursor:
            for run, account, point in notes:
                _put_account(cursor, run, account)
                cursor.execute(
                    "INSERT INTO points VALUES (?, ?, ?, ?)",
                    (run.experiment, run.run, wall, json.dumps(point)),
                )

    def account(self, experiment: str, run: int) -> Data | None:
        """The last account of a run."""
        rows = self._rows(
            "SELECT account FROM accounts WHERE experiment = ? AND run = ?", experiment, run
        )
        return json.loads(rows[0][0]) if rows else None

    def points(self, experiment: str, run: int) -> list[Data]:
        """The points of a run, oldest first; `at` in Unix seconds."""
        rows = self._rows(
            "SELECT at, point FROM points WHERE experiment = ? AND run = ? ORDER BY rowid",
            experiment,
            run,
        )
        return [{"at": at, **json.loads(point)} for at, point in rows]

    def killed(self) -> bool:
        """Whether the kill switch is on."""
        return bool(self._rows("SELECT value FROM switches WHERE name = 'kill'")[0][0])

    def set_killed(self, on: bool) -> None:
        try:
            self._db.execute("UPDATE switches SET value = ? WHERE name = 'kill'", (int(on),))
        except sqlite3.Error as e:
            raise HistoryError(f"cannot commit the kill switch: {e}") from e

    def timeline(self, experiment: str, run: int) -> list[Data]:
        """What happened to a run, oldest first; `at` in Unix seconds."""
        rows = self._rows(
            "SELECT at, state, reason FROM events WHERE experiment = ? AND run = ? ORDER BY rowid",
            experiment,
            run,
        )
        return [{"at": at, "state": state, "reason": reason} for at, state, reason in rows]

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


def _put_account(cursor: sqlite3.Cursor, run: Run, account: Data) -> None:
    cursor.execute(
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)",
        (run.experiment, run.run, json.dumps(account)),
    )
