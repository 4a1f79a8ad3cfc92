"""Successors of keys, revocations, invitations, second API keys, and failed attempts to prove who one is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("organization", sa.Column("revocation", sa.JSON(), nullable=True))
    op.add_column("node", sa.Column("next_api_key", sa.String(length=64), nullable=True))
    op.create_index("ix_node_next_api_key", "node", ["next_api_key"], unique=False)
    op.create_table(
        "succession",
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("statement", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_succession_organization_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_succession"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_succession_organization_id", "succession", ["organization_id"], unique=False)
    op.create_table(
        "invitation",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.DateTime(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_invitation_node_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_invitation"),
        sa.UniqueConstraint("node_id", name="uq_invitation_node_id"),
        sa.UniqueConstraint("secret", name="uq_invitation_secret"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "failure",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_failure"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_failure_address_at", "failure", ["address", "at"], unique=False)
    op.create_index("ix_failure_at", "failure", ["at"], unique=False)


def downgrade() -> None:
    for table in ("failure", "invitation", "succession"):
        op.drop_table(table)
    op.drop_index("ix_node_next_api_key", "node")
    op.drop_column("node", "next_api_key")
    op.drop_column("organization", "revocation")
