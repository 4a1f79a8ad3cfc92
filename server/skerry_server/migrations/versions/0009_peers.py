"""Runs that reach each other over the VPN."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "peer",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=15), nullable=False),
        sa.Column("statement", sa.JSON(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_peer_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_peer_collaboration_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_peer"),
        sa.UniqueConstraint("run_id", name="uq_peer_run_id"),
        sa.UniqueConstraint("collaboration_id", "address", name="uq_peer_collaboration_id_address"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_peer_job_id", "peer", ["job_id"], unique=False)


def downgrade() -> None:
    op.drop_table("peer")
