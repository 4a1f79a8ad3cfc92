"""Attempts that were started here and are over: remembered, so that none is started again, whatever a server says."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from skerry.errors import ConfigurationError, NotRecorded
from skerry_node.launchers.launcher import Attempt

_KEPT_SECONDS = 366 * 86_400
_ANY = ""
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS ended (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, task TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (run, attempt, task)
);
CREATE INDEX IF NOT EXISTS ended_until ON ended (until);
"""


class EndedAttempts:
    """An SQLite file. Safe for threads. Raises ConfigurationError when it can't be opened.

    ``task`` is the UUID of the attempt's task: a server that was restored from a back-up gives the numbers of runs that
    it has forgotten to others. None, where it is not known, stands for any.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._unwritten: set[tuple[int, int, str]] = set()
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"state_folder: {path} can't be opened ({error}).") from error

    def add(self, attempt: Attempt, task: str | None) -> None:
        """On the disk when this returns. Raises NotRecorded: then only this process remembers it."""
        row, now = (attempt.run, attempt.number, task or _ANY), int(self._clock())
        until = now + _KEPT_SECONDS
        with self._lock:
            self._unwritten.add(row)
            try:
                self._connection.execute("DELETE FROM ended WHERE until < ?", (now,))
                self._connection.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)", (*row, until))
            except sqlite3.Error as error:
                raise NotRecorded(f"that it has ended can't be written down ({error})") from error
            self._unwritten.discard(row)

    def has(self, attempt: Attempt, task: str) -> bool:
        """Raises NotRecorded when the file can't be read."""
        key = (attempt.run, attempt.number)
        found = "SELECT 1 FROM ended WHERE run = ? AND attempt = ? AND task IN (?, ?)"
        with self._lock:
            if {(*key, task), (*key, _ANY)} & self._unwritten:
                return True
            try:
                return self._connection.execute(found, (*key, task, _ANY)).fetchone() is not None
            except sqlite3.Error as error:
                raise NotRecorded(f"what has ended can't be read ({error})") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()
