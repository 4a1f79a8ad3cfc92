"""Indices of SQLite's for tasks by the beginning of a text: 0014 has PostgreSQL's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
_SEARCHED = ("name", "image", "description")


def upgrade() -> None:
    if _folds():
        for column in _SEARCHED:
            op.create_index(f"ix_task_{column}_folded", "task", [sa.text(f"{column} COLLATE NOCASE")])


def downgrade() -> None:
    if _folds():
        for column in _SEARCHED:
            op.drop_index(f"ix_task_{column}_folded", "task")


def _folds() -> bool:
    """SQLite's LIKE has no regard to case."""
    return op.get_context().dialect.name == "sqlite"
