"""What must not happen twice in the same moment, whichever process of the server begins it.

On PostgreSQL these are advisory locks that end with the transaction. SQLite has one writer at a time, so that a writing
transaction holds every lock already.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

_Row = TypeVar("_Row")


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
