"""Payloads that are uploaded before their task, and fetched by a UUID."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("payload", sa.Column("blob", sa.String(length=36), nullable=True))
    op.add_column("payload", sa.Column("format", sa.String(length=32), nullable=True))
    op.add_column("payload", sa.Column("uploader", sa.String(length=32), nullable=True))
    op.add_column("payload", sa.Column("uploaded_at", sa.DateTime(), nullable=True))
    with op.batch_alter_table("payload", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.create_unique_constraint("uq_payload_blob", ["blob"])
    op.create_index("ix_payload_uploaded_at", "payload", ["uploaded_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_payload_uploaded_at", "payload")
    with op.batch_alter_table("payload", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_constraint("uq_payload_blob")
        for name in ("uploaded_at", "uploader", "format", "blob"):
            table.drop_column(name)
