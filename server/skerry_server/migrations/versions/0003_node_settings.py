"""What nodes tell of their own configuration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "node_setting",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=1024), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_node_setting_node_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_node_setting"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_node_setting_node_id", "node_setting", ["node_id"], unique=False)


def downgrade() -> None:
    op.drop_table("node_setting")
