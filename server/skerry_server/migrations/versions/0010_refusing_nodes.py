"""Nodes say why they take no runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("node", sa.Column("refuses", sa.String(length=16), nullable=True))


def downgrade() -> None:
    op.drop_column("node", "refuses")
