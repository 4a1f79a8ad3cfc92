"""Indices for lists of a long database: the oldest open runs, and tasks by the beginning of a text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
_OPEN = sa.text("finished_at IS NULL")
_SEARCHED = ("name", "image", "description")


def upgrade() -> None:
    op.create_index("ix_run_open", "run", ["id"], unique=False, sqlite_where=_OPEN, postgresql_where=_OPEN)
    if _has_patterns():
        for column in _SEARCHED:
            patterns = {column: "varchar_pattern_ops"}
            op.create_index(f"ix_task_{column}_pattern", "task", [column], unique=False, postgresql_ops=patterns)


def downgrade() -> None:
    if _has_patterns():
        for column in _SEARCHED:
            op.drop_index(f"ix_task_{column}_pattern", "task")
    op.drop_index("ix_run_open", "run")


def _has_patterns() -> bool:
    """Those of SQLite came later."""
    return op.get_context().dialect.name == "postgresql"
