"""What the proxy must remember over a restart: which envelopes were used, and which child tasks its runs made."""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerry.errors import ConfigurationError, ContextError

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS used (
    sender INTEGER NOT NULL, task TEXT NOT NULL, run INTEGER NOT NULL, attempt INTEGER NOT NULL,
    expires INTEGER NOT NULL, PRIMARY KEY (sender, task)
);
CREATE TABLE IF NOT EXISTS children (
    uuid TEXT PRIMARY KEY, run INTEGER NOT NULL, attempt INTEGER NOT NULL, task INTEGER UNIQUE,
    databases TEXT NOT NULL, organizations TEXT NOT NULL, expires INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS unanswered (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, wish TEXT NOT NULL, uuid TEXT NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (run, attempt, wish, uuid)
);
CREATE INDEX IF NOT EXISTS used_expires ON used (expires);
CREATE INDEX IF NOT EXISTS children_expires ON children (expires);
CREATE INDEX IF NOT EXISTS unanswered_uuid ON unanswered (uuid);
CREATE INDEX IF NOT EXISTS unanswered_expires ON unanswered (expires);
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A child task as its run asked for it, whatever the server says of it later."""

    uuid: str
    databases: tuple[dict[str, Any], ...]
    organizations: frozenset[int]


class Ledger:
    """An SQLite file. Safe for threads; one process at a time. What has expired is forgotten when more is written.

    Raises ConfigurationError when the file can't be opened; what writes raises OSError (ENOSPC) on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"The proxy's ledger {path} can't be opened: {error}.") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def use(self, sender: int, task: str, run: tuple[int, int], expires: int, now: float) -> None:
        """Notes that the sender's envelope for that task is opened for that run and attempt.

        Raises ContextError when it was opened for another one before: the task is being replayed.
        """
        with self._transaction(now) as connection:
            connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?, ?, ?, ?)", (sender, task, *run, expires))
            row = connection.execute("SELECT run, attempt FROM used WHERE sender = ? AND task = ?", (sender, task))
            if row.fetchone() != run:
                raise ContextError(
                    f"The input of task {task} was used before, by another run or attempt: a task is not run twice."
                )

    def plan_child(self, run: tuple[int, int], child: Child, wish: str, expires: int, now: float) -> None:
        """Notes a child task before the server hears of it; nothing new where the same UUID is noted already.

        ``wish`` names what was asked for: until ``answer_child``, ``find_unanswered`` gives this UUID for it.
        """
        databases, organizations = json.dumps(list(child.databases)), json.dumps(sorted(child.organizations))
        with self._transaction(now) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO children VALUES (?, ?, ?, NULL, ?, ?, ?)",
                (child.uuid, *run, databases, organizations, expires),
            )
            connection.execute(
                "INSERT OR IGNORE INTO unanswered VALUES (?, ?, ?, ?, ?)", (*run, wish, child.uuid, expires)
            )

    def answer_child(self, uuid: str, now: float) -> None:
        """The run has heard of this child task: whoever wishes for the same again gets another one."""
        with self._transaction(now) as connection:
            connection.execute("DELETE FROM unanswered WHERE uuid = ?", (uuid,))

    def find_unanswered(self, run: tuple[int, int], wish: str) -> list[str]:
        """The child tasks that the run asked for in these words and has not heard of, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT uuid FROM unanswered WHERE run = ? AND attempt = ? AND wish = ? ORDER BY rowid", (*run, wish)
            ).fetchall()
        return [uuid for (uuid,) in rows]

    def name_child(self, uuid: str, task: int, now: float) -> None:
        """Notes the number that the server gave to a child task; raises ContextError when another one has it."""
        try:
            with self._transaction(now) as connection:
                connection.execute("UPDATE children SET task = ? WHERE uuid = ?", (task, uuid))
        except sqlite3.IntegrityError as error:
            raise ContextError(f"The server gave the number {task} to two tasks.") from error

    def find_child(self, run: tuple[int, int], task: int) -> Child | None:
        """The child task of that number, if that run and attempt made it."""
        with self._lock:
            row = self._connection.execute(
                "SELECT uuid, databases, organizations FROM children WHERE run = ? AND attempt = ? AND task = ?",
                (*run, task),
            ).fetchone()
        return None if row is None else Child(row[0], tuple(json.loads(row[1])), frozenset(json.loads(row[2])))

    @contextmanager
    def _transaction(self, now: float) -> Iterator[sqlite3.Connection]:
        with self._lock, _room():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for table in ("used", "children", "unanswered"):
                    self._connection.execute(f"DELETE FROM {table} WHERE expires < ?", (now,))  # noqa: S608 # nosec B608
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it itself when it can't write
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def _room() -> Iterator[None]:
    """A full disk is the same error here as for any other file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, "The proxy's ledger can't be written") from error
