"""When what a finished run carried was removed; and claims in the order of their age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_CLAIMS = ("state", "organization_id", "collaboration_id")
_KEPT = sa.text("cleanup_at IS NULL")


def upgrade() -> None:
    op.add_column("run", sa.Column("cleanup_at", sa.DateTime(), nullable=True))
    op.create_index("ix_run_kept", "run", ["finished_at"], unique=False, sqlite_where=_KEPT, postgresql_where=_KEPT)
    op.drop_index("ix_run_state_organization_id_collaboration_id", "run")
    op.create_index("ix_run_claims", "run", [*_CLAIMS, "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_run_claims", "run")
    op.create_index("ix_run_state_organization_id_collaboration_id", "run", list(_CLAIMS), unique=False)
    op.drop_index("ix_run_kept", "run")
    op.drop_column("run", "cleanup_at")
