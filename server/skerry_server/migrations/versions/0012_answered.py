"""Answers to requests that carried a key, for those who repeat them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "answered",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_answered"),
        sa.UniqueConstraint("key", name="uq_answered_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_answered_at", "answered", ["at"], unique=False)


def downgrade() -> None:
    op.drop_table("answered")
