"""Indices for lists of a long database: a node's runs, and runs by a port."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index("ix_run_node_id", "run", ["node_id"])
    op.create_index("ix_port_port", "port", ["port"])


def downgrade() -> None:
    op.drop_index("ix_port_port", "port")
    op.drop_index("ix_run_node_id", "run")
