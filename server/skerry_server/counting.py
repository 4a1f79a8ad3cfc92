"""How many rows a list has, in a time that does not grow with them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, literal_column, select
from sqlalchemy.orm import Session

COUNTED = 10_000
"""So many are counted one by one; of more PostgreSQL says how many it expects from its statistics."""
_FEW, _FAR = 1000, 5


def estimates(session: Session) -> bool:
    """Whether the database goes by what it expects."""
    return session.get_bind().dialect.name == "postgresql"


def count(session: Session, statement: Select[Any]) -> int:
    """Exact up to ``COUNTED`` where the estimate is not far above that, and always on SQLite; else an estimate."""
    if not estimates(session):
        every = statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        return session.connection().scalar(every) or 0
    plain: Select[Any] = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)
    few = _exact(session, plain.limit(_FEW + 1))
    if few <= min(_FEW, COUNTED):
        return few
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
