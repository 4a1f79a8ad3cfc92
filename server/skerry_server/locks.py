"""What must not happen twice in the same moment, whichever process of the server begins it.

On PostgreSQL these are advisory locks that end with the transaction. SQLite has one writer at a time, so that a writing
transaction holds every lock already; it lets the others poll for it, where a ``Turn`` queues them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from skerry.errors import ConfigurationError

_Row = TypeVar("_Row")


class Turn:
    """Who has it writes to SQLite: one thread, of one process."""

    def __init__(self, database: Path | None) -> None:
        """Threads of this process only where there is no file."""
        self._path = database.with_name(f"{database.name}-turn") if database is not None else None
        self._file: int | None = None
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        """Raises ConfigurationError when there can be no such file."""
        self._threads.acquire()
        try:
            if self._path is not None:
                self._take(self._path)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _take(self, path: Path) -> None:
        if self._file is None:
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ConfigurationError(f"{path} can't be made: {error.strerror}.") from error
        fcntl.flock(self._file, fcntl.LOCK_EX)


def hold(where: Session | Connection, what: str) -> None:
    """Waits until no other transaction holds this; held until the present one ends."""
    connection = _connection(where)
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_number(what))))


def try_hold(where: Session | Connection, what: str) -> bool:
    """The same without waiting: false when another transaction holds it."""
    connection = _connection(where)
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_number(what)))))


def row(session: Session, model: type[_Row], id_: int, **options: Any) -> _Row | None:
    """The row as it is now, which nobody else changes until the transaction ends; None when it is gone."""
    return session.get(model, id_, populate_existing=True, with_for_update={"key_share": True, "of": model}, **options)


def _connection(where: Session | Connection) -> Connection:
    return where if isinstance(where, Connection) else where.connection()


def _number(what: str) -> int:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)
