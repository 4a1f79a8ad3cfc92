"""How many rows a list has, in a time that does not grow with them."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Select, True_, func, literal_column, select
from sqlalchemy.orm import Session

COUNTED = 10_000
"""So many are counted one by one; of more there is an estimate."""
_FEW, _FAR, _SAMPLE = 1000, 5, 300


def count(session: Session, statement: Select[Any]) -> int:
    """Exact up to ``COUNTED``; above that an estimate. What is far above it is not even counted so far."""
    plain: Select[Any] = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)
    few = _exact(session, plain.limit(_FEW + 1))
    if few <= min(_FEW, COUNTED):
        return few
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    expected = _expected(session, plain) if is_postgresql else _sampled(session, statement, plain)
    if expected > _FAR * COUNTED:
        return expected
    exact = _exact(session, plain.limit(COUNTED + 1))
    return exact if exact <= COUNTED else max(exact, expected)


def _exact(session: Session, statement: Select[Any]) -> int:
    return session.scalar(select(func.count()).select_from(statement.subquery())) or 0


def _expected(session: Session, statement: Select[Any]) -> int:
    """By PostgreSQL's statistics."""
    compiled = statement.compile(dialect=session.get_bind().dialect, compile_kwargs={"render_postcompile": True})
    explained = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", compiled.params).scalar_one()
    return int(explained[0]["Plan"]["Plan Rows"])


def _sampled(session: Session, statement: Select[Any], plain: Select[Any]) -> int:
    """By the share of some ids that are of the list: SQLite keeps no statistics, but counts a whole table quickly."""
    id_ = statement.column_descriptions[0]["entity"].__table__.c.id
    if statement.whereclause is None or isinstance(statement.whereclause, True_):
        return session.scalar(select(func.count(id_))) or 0
    last = session.scalar(select(func.max(id_))) or 0
    ids = set(random.Random(last).choices(range(1, last + 1), k=_SAMPLE))  # noqa: S311 - the same for the same table
    return _exact(session, plain.where(id_.in_(ids))) * last // len(ids)
