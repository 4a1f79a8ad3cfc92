"""How many rows a list has, in a time that as a rule does not grow with them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, func, literal_column, select
from sqlalchemy.orm import Session

COUNTED = 10_000
"""So many are counted one by one; of more PostgreSQL says how many it expects from its statistics."""
_FEW, _FAR = 1000, 5
_DEAR, _LONGEST, _LISTS = 100, 60.0, 1000


def estimates(session: Session) -> bool:
    """Whether the database goes by what it expects: SQLite goes by how a statement is written."""
    return session.get_bind().dialect.name == "postgresql"


class Counter:
    """Counts lists, for one process of the server.

    SQLite expects nothing of the sort: it counts long lists to their end, and that is remembered for ``_DEAR`` times as
    long as it took. ``clock`` counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def count(self, session: Session, statement: Select[Any]) -> int:
        """Exact up to ``COUNTED`` where PostgreSQL's estimate is not far above that; else an estimate, or the last."""
        plain = _plain(statement)
        if estimates(session):
            return _estimated(session, plain)
        exact = _exact(session, plain.limit(COUNTED + 1))
        return exact if exact <= COUNTED else max(exact, self._last(session, plain))

    def _last(self, session: Session, plain: Select[Any]) -> int:
        compiled = plain.compile(dialect=session.get_bind().dialect)
        key = hashlib.sha256(repr((str(compiled), sorted(compiled.params.items()))).encode()).digest()
        with self._lock:
            until, known = self._known.get(key, (0.0, 0))
        began = self._clock()
        if began < until:
            return known
        whole = plain.with_only_columns(func.count(), maintain_column_froms=True)
        found = int(session.connection().scalar(whole) or 0)
        ended = self._clock()
        with self._lock:
            self._known[key] = ended + min(_DEAR * (ended - began), _LONGEST), found
            self._known.move_to_end(key)
            if len(self._known) > _LISTS:
                self._known.popitem(last=False)
        return found


def few(session: Session, statement: Select[Any]) -> int | None:
    """How many there are, up to ``COUNTED``; None for more, or where PostgreSQL expects far more."""
    plain = _plain(statement)
    found = _estimated(session, plain) if estimates(session) else _exact(session, plain.limit(COUNTED + 1))
    return found if found <= COUNTED else None


def _plain(statement: Select[Any]) -> Select[Any]:
    return statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)


def _estimated(session: Session, plain: Select[Any]) -> int:
    found = _exact(session, plain.limit(_FEW + 1))
    if found <= min(_FEW, COUNTED):
        return found
    expected = _expected(session, plain)
    if expected > _FAR * COUNTED:
        return expected
    exact = _exact(session, plain.limit(COUNTED + 1))
    return exact if exact <= COUNTED else max(exact, expected)


def _exact(session: Session, statement: Select[Any]) -> int:
    return session.connection().scalar(select(func.count()).select_from(statement.subquery())) or 0


def _expected(session: Session, statement: Select[Any]) -> int:
    """By PostgreSQL's statistics."""
    compiled = statement.compile(dialect=session.get_bind().dialect, compile_kwargs={"render_postcompile": True})
    explained = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", compiled.params).scalar_one()
    return int(explained[0]["Plan"]["Plan Rows"])
