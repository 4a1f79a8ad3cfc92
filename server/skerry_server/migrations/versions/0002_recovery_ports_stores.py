"""Second factors and recovery of users; ports of runs; algorithm stores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "algorithm_store",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("url", sa.String(length=512), nullable=False),
        sa.Column("everywhere", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_algorithm_store"),
        sa.UniqueConstraint("url", name="uq_algorithm_store_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "store_member",
        sa.Column("algorithm_store_id", sa.Integer(), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["algorithm_store_id"],
            ["algorithm_store.id"],
            name="fk_store_member_algorithm_store_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_store_member_collaboration_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("algorithm_store_id", "collaboration_id", name="pk_store_member"),
    )
    op.create_index("ix_store_member_collaboration_id", "store_member", ["collaboration_id"], unique=False)
    op.create_table(
        "port",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=True),
        sa.Column("ip", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_port_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_port"),
        sa.UniqueConstraint("run_id", "port", name="uq_port_run_id_port"),
        sqlite_autoincrement=True,
    )
    op.add_column("user", sa.Column("otp_secret", sa.String(length=64), nullable=True))
    op.add_column("user", sa.Column("otp_step", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("user", sa.Column("mailed_at", sa.DateTime(), nullable=True))
    op.add_column("task", sa.Column("store_id", sa.Integer(), nullable=True))
    op.create_index("ix_task_store_id", "task", ["store_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_task_store_id", "task")
    op.drop_column("task", "store_id")
    for name in ("otp_secret", "otp_step", "mailed_at"):
        op.drop_column("user", name)
    for table in ("port", "store_member", "algorithm_store"):
        op.drop_table(table)
