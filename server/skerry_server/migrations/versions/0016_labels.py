"""The labels of each task's databases, to find tasks by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
_AT_ONCE = 1000


def upgrade() -> None:
    made = op.create_table(
        "task_database",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_task_database_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "label", name="pk_task_database"),
    )
    op.create_index("ix_task_database_label_task_id", "task_database", ["label", "task_id"])
    _fill(op.get_bind(), made)


def downgrade() -> None:
    op.drop_table("task_database")


def _fill(connection: sa.Connection, made: sa.Table) -> None:
    """Not in SQL: PostgreSQL's functions fail at a NUL character in what else a database's JSON holds."""
    task = sa.table("task", sa.column("id"), sa.column("databases", sa.JSON))
    asked = sa.select(task.c.id, task.c.databases).where(sa.cast(task.c.databases, sa.Text) != "[]")
    for some in connection.execute(asked, execution_options={"yield_per": _AT_ONCE}).partitions():
        labels = {(id_, database["label"]) for id_, databases in some for database in databases}
        connection.execute(made.insert(), [{"task_id": id_, "label": label} for id_, label in sorted(labels)])
