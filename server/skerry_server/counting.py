"""How many rows a list has, in a time that does not grow with them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, literal_column, select
from sqlalchemy.orm import Session

COUNTED = 10_000
"""So many are counted one by one; of more PostgreSQL says how many it expects from its statistics."""


def count(session: Session, statement: Select[Any]) -> int:
    """Exact up to ``COUNTED``, and always on SQLite; above that an estimate on PostgreSQL, never below it."""
    plain: Select[Any] = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)
    if session.get_bind().dialect.name != "postgresql":
        return session.scalar(select(func.count()).select_from(plain.subquery())) or 0
    exact = session.scalar(select(func.count()).select_from(plain.limit(COUNTED + 1).subquery())) or 0
    return exact if exact <= COUNTED else max(exact, _expected(session, plain))


def _expected(session: Session, statement: Select[Any]) -> int:
    compiled = statement.compile(dialect=session.get_bind().dialect, compile_kwargs={"render_postcompile": True})
    explained = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", compiled.params).scalar_one()
    return int(explained[0]["Plan"]["Plan Rows"])
