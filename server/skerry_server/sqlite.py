"""What is special to SQLite: how its connections are set up, its one writer at a time, and its write-ahead log."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skerry.errors import ConfigurationError
from skerry_server.errors import Busy

BUSY_SECONDS = 30.0
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=4000")
"""The log is brought into the tables every 16 MB: every 4, as SQLite does unasked, costs writers a twelfth more."""
_LARGE_LOG = 24 << 20
_LOOK_SECONDS = 1.0
_READERS_END = "PRAGMA busy_timeout=100"
"""Milliseconds: for so long, at most, who waits to write waits for those who read."""
_EMPTY = "PRAGMA wal_checkpoint(TRUNCATE)"


def set_up(connection: Any, _record: object) -> None:
    """Of a new connection."""
    connection.isolation_level = None  # the driver begins nothing by itself
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def begin_to_read(_session: object, _transaction: object, connection: Connection) -> None:
    """What follows sees the database as it is at this moment."""
    begin(connection, "BEGIN")


def begin_to_write(_session: object, _transaction: object, connection: Connection) -> None:
    """With the lock, so that it does not fail half-way."""
    begin(connection, "BEGIN IMMEDIATE")


def begin(connection: Connection, how: str) -> None:
    try:
        connection.exec_driver_sql(how)
    except DBAPIError:
        connection.invalidate()  # or the session would go on without a transaction
        raise


class Turn:
    """Who has it writes: one thread, of one process.

    SQLite lets all writers but one poll; here they queue, by a lock on a file beside the database. Raises Busy after
    ``BUSY_SECONDS``, as SQLite would, ConfigurationError when there can be no such file.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = threading.Lock()
        self._lock: _FileLock | None = None
        self._next_look = 0.0

    def __enter__(self) -> None:
        if not self._threads.acquire(timeout=BUSY_SECONDS):
            raise _busy()
        try:
            self._lock = self._lock or _FileLock(_file(self._engine))
            self._lock.take(BUSY_SECONDS)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        with ExitStack() as leaving:
            leaving.callback(self._threads.release)
            if self._lock is not None:
                leaving.callback(self._lock.leave)
                self._trim(self._lock.log)

    def _trim(self, log: Path) -> None:
        """Empties a log that has grown. SQLite does so by itself when nobody reads what is older, and so never does
        while several processes read.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        with suppress(OSError, SQLAlchemyError):  # what was written is safe: it is tried again
            if log.stat().st_size > _LARGE_LOG:
                self._empty()

    def _empty(self) -> None:
        with self._engine.connect() as connection:
            try:
                connection.exec_driver_sql(_READERS_END)
                connection.exec_driver_sql(_EMPTY).all()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")


def _file(engine: Engine) -> Path:
    """Where the database lies, as SQLite sees it. Raises ConfigurationError for one in memory."""
    with engine.connect() as connection:
        [name] = [row.file for row in connection.exec_driver_sql("PRAGMA database_list") if row.name == "main"]
    if not name:
        raise ConfigurationError('"database": what is in memory ends with the server: name a file.')
    return Path(name)


def _busy() -> Busy:
    return Busy("Another process has been writing to the database for long: try again in a moment.")


class _FileLock:
    """Shared out among processes by the kernel, which frees it when its holder is killed. For one thread at a time.

    The kernel knows no end of waiting. So a thread of its own waits where one has to, and who is granted the lock when
    nobody wants it any more gives it back.
    """

    def __init__(self, database: Path) -> None:
        self.log = database.with_name(f"{database.name}-wal")
        self._file = _open(database.with_name(f"{database.name}-turn"), database)
        weakref.finalize(self, os.close, self._file)
        self._mutex = threading.Condition()
        self._asked = self._granted = self._wanted = False

    def take(self, seconds: float) -> None:
        """Raises Busy."""
        with self._mutex:
            if not self._asked:
                with suppress(BlockingIOError):
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                self._asked = True
                threading.Thread(target=self._wait, name="turn", daemon=True).start()
            self._wanted = True
            try:
                granted = self._mutex.wait_for(lambda: self._granted, seconds)
            finally:
                self._wanted = False
            if not granted:
                raise _busy()
            self._asked = self._granted = False

    def leave(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def _wait(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._mutex:
            if self._wanted:
                self._granted = True
                self._mutex.notify()
            else:
                self._asked = False
                self.leave()


def _open(path: Path, database: Path) -> int:
    """The file's owner and rights are those of the database, whoever made it. Raises ConfigurationError."""
    try:
        like = database.stat()
        with suppress(FileExistsError):
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(made, stat.S_IMODE(like.st_mode))  # whatever the umask is
            if os.geteuid() == 0:
                os.fchown(made, like.st_uid, like.st_gid)
            return made
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be opened: {error.strerror}.") from error
