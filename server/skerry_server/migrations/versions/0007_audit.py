"""The audit trail: chains of records, and the head of each. Triggers refuse whatever is not an addition."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_INDEXED = ("actor_organization_id", "organization_id", "collaboration_id", "task_id", "run_id")
_REFUSAL = "audit records are only added, and heads only move forward"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("writer", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("time", sa.String(length=32), nullable=False),
        sa.Column("actor_kind", sa.String(length=16), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=True),
        sa.Column("actor_organization_id", sa.Integer(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("object_kind", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.Integer(), nullable=True),
        sa.Column("organization_id", sa.Integer(), nullable=True),
        sa.Column("collaboration_id", sa.Integer(), nullable=True),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.UniqueConstraint("writer", "sequence", name="uq_audit_writer_sequence"),
        sqlite_autoincrement=True,
    )
    for name in _INDEXED:
        op.create_index(f"ix_audit_{name}", "audit", [name], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("writer", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_audit_head"),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_head")
    op.drop_table("audit")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION audit_refuse()")


_REFUSE = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
_SQLITE = (
    f"CREATE TRIGGER audit_update BEFORE UPDATE ON audit {_REFUSE}",
    f"CREATE TRIGGER audit_delete BEFORE DELETE ON audit {_REFUSE}",
    f"CREATE TRIGGER audit_head_delete BEFORE DELETE ON audit_head {_REFUSE}",
    f"""CREATE TRIGGER audit_head_update BEFORE UPDATE ON audit_head
    WHEN NEW.writer != OLD.writer OR NEW.sequence <= OLD.sequence {_REFUSE}""",
)
_POSTGRESQL = (
    f"CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
    "CREATE TRIGGER audit_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_head_refuse BEFORE DELETE OR TRUNCATE ON audit_head EXECUTE FUNCTION audit_refuse()",
    """CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head FOR EACH ROW
    WHEN (NEW.writer <> OLD.writer OR NEW.sequence <= OLD.sequence) EXECUTE FUNCTION audit_refuse()""",
)
