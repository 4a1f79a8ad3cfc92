"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:  # noqa: PLR0915 - a flat list of tables
    op.create_table(
        "collaboration",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        sa.Column("accept", sa.String(length=16), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collaboration"),
        sa.UniqueConstraint("name", name="uq_collaboration_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "event",
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_at", "event", ["at"], unique=False)
    op.create_table(
        "organization",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("domain", sa.String(length=128), nullable=True),
        sa.Column("address1", sa.String(length=128), nullable=True),
        sa.Column("address2", sa.String(length=128), nullable=True),
        sa.Column("zipcode", sa.String(length=128), nullable=True),
        sa.Column("country", sa.String(length=128), nullable=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("signing_key", sa.LargeBinary(), nullable=True),
        sa.Column("binding", sa.LargeBinary(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organization"),
        sa.UniqueConstraint("name", name="uq_organization_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_organization_country", "organization", ["country"], unique=False)
    op.create_table(
        "payload",
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("inline", sa.LargeBinary(), nullable=True),
        sa.Column("file", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payload"),
        sa.UniqueConstraint("file", name="uq_payload_file"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rule",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("operation", sa.String(length=16), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("description", sa.String(length=256), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rule"),
        sa.UniqueConstraint("name", "operation", "scope", name="uq_rule_name_operation_scope"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rule_operation", "rule", ["operation"], unique=False)
    op.create_index("ix_rule_scope", "rule", ["scope"], unique=False)
    op.create_table(
        "member",
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_member_collaboration_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_member_organization_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collaboration_id", "organization_id", name="pk_member"),
    )
    op.create_index("ix_member_organization_id", "member", ["organization_id"], unique=False)
    op.create_table(
        "node",
        sa.Column("name", sa.String(length=272), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("api_key", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("ip", sa.String(length=64), nullable=True),
        sa.Column("last_seen", sa.DateTime(), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_node_collaboration_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_node_organization_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
        sa.UniqueConstraint("api_key", name="uq_node_api_key"),
        sa.UniqueConstraint("name", name="uq_node_name"),
        sa.UniqueConstraint("organization_id", "collaboration_id", name="uq_node_organization_id_collaboration_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_node_collaboration_id", "node", ["collaboration_id"], unique=False)
    op.create_index("ix_node_last_seen", "node", ["last_seen"], unique=False)
    op.create_index("ix_node_online", "node", ["online"], unique=False)
    op.create_table(
        "role",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=True),
        sa.Column("organization_id", sa.Integer(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_role_organization_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_role"),
        sa.UniqueConstraint("name", "organization_id", name="uq_role_name_organization_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_role_organization_id", "role", ["organization_id"], unique=False)
    op.create_table(
        "study",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_study_collaboration_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_study_collaboration_id", "study", ["collaboration_id"], unique=False)
    op.create_table(
        "user",
        sa.Column("username", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=128), nullable=False),
        sa.Column("firstname", sa.String(length=128), nullable=True),
        sa.Column("lastname", sa.String(length=128), nullable=True),
        sa.Column("password", sa.String(length=256), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("failed_logins", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(), nullable=True),
        sa.Column("last_seen", sa.DateTime(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_user_organization_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_user"),
        sa.UniqueConstraint("email", name="uq_user_email"),
        sa.UniqueConstraint("username", name="uq_user_username"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_user_last_seen", "user", ["last_seen"], unique=False)
    op.create_index("ix_user_organization_id", "user", ["organization_id"], unique=False)
    op.create_table(
        "role_rule",
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["role_id"], ["role.id"], name="fk_role_rule_role_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["rule_id"], ["rule.id"], name="fk_role_rule_rule_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("role_id", "rule_id", name="pk_role_rule"),
    )
    op.create_index("ix_role_rule_rule_id", "role_rule", ["rule_id"], unique=False)
    op.create_table(
        "study_member",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_study_member_organization_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_study_member_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "organization_id", name="pk_study_member"),
    )
    op.create_index("ix_study_member_organization_id", "study_member", ["organization_id"], unique=False)
    op.create_table(
        "task",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("creator", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=True),
        sa.Column("description", sa.String(length=1024), nullable=True),
        sa.Column("image", sa.String(length=1024), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("init_org_id", sa.Integer(), nullable=False),
        sa.Column("init_user_id", sa.Integer(), nullable=True),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("parent_run_id", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("databases", sa.JSON(), nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_task_collaboration_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["init_org_id"], ["organization.id"], name="fk_task_init_org_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["init_user_id"], ["user.id"], name="fk_task_init_user_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["parent_id"], ["task.id"], name="fk_task_parent_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_task_study_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
        sa.UniqueConstraint("uuid", name="uq_task_uuid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_collaboration_id", "task", ["collaboration_id"], unique=False)
    op.create_index("ix_task_creator_fingerprint", "task", ["creator", "fingerprint"], unique=False)
    op.create_index("ix_task_image", "task", ["image"], unique=False)
    op.create_index("ix_task_init_org_id", "task", ["init_org_id"], unique=False)
    op.create_index("ix_task_init_user_id", "task", ["init_user_id"], unique=False)
    op.create_index("ix_task_job_id", "task", ["job_id"], unique=False)
    op.create_index("ix_task_name", "task", ["name"], unique=False)
    op.create_index("ix_task_parent_id", "task", ["parent_id"], unique=False)
    op.create_index("ix_task_parent_run_id", "task", ["parent_run_id"], unique=False)
    op.create_index("ix_task_status", "task", ["status"], unique=False)
    op.create_index("ix_task_study_id", "task", ["study_id"], unique=False)
    op.create_table(
        "user_role",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["role_id"], ["role.id"], name="fk_user_role_role_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_user_role_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "role_id", name="pk_user_role"),
    )
    op.create_index("ix_user_role_role_id", "user_role", ["role_id"], unique=False)
    op.create_table(
        "user_rule",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rule_id"], ["rule.id"], name="fk_user_rule_rule_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_user_rule_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "rule_id", name="pk_user_rule"),
    )
    op.create_index("ix_user_rule_rule_id", "user_rule", ["rule_id"], unique=False)
    op.create_table(
        "run",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("collaboration_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_expires", sa.DateTime(), nullable=True),
        sa.Column("input_id", sa.Integer(), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=True),
        sa.Column("staged_id", sa.Integer(), nullable=True),
        sa.Column("staged_attempt", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=256), nullable=True),
        sa.Column("assigned_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("log", sa.Text(), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collaboration_id"], ["collaboration.id"], name="fk_run_collaboration_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["input_id"], ["payload.id"], name="fk_run_input_id"),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_run_node_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name="fk_run_organization_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["result_id"], ["payload.id"], name="fk_run_result_id"),
        sa.ForeignKeyConstraint(["staged_id"], ["payload.id"], name="fk_run_staged_id"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_run_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_run_assigned_at", "run", ["assigned_at"], unique=False)
    op.create_index("ix_run_collaboration_id", "run", ["collaboration_id"], unique=False)
    op.create_index("ix_run_finished_at", "run", ["finished_at"], unique=False)
    op.create_index("ix_run_input_id", "run", ["input_id"], unique=False)
    op.create_index("ix_run_node_id_state", "run", ["node_id", "state"], unique=False)
    op.create_index("ix_run_organization_id", "run", ["organization_id"], unique=False)
    op.create_index("ix_run_result_id", "run", ["result_id"], unique=False)
    op.create_index("ix_run_staged_id", "run", ["staged_id"], unique=False)
    op.create_index("ix_run_started_at", "run", ["started_at"], unique=False)
    op.create_index("ix_run_state_lease_expires", "run", ["state", "lease_expires"], unique=False)
    op.create_index(
        "ix_run_state_organization_id_collaboration_id",
        "run",
        ["state", "organization_id", "collaboration_id"],
        unique=False,
    )
    op.create_index("ix_run_task_id", "run", ["task_id"], unique=False)


def downgrade() -> None:
    op.drop_table("run")
    op.drop_table("user_rule")
    op.drop_table("user_role")
    op.drop_table("task")
    op.drop_table("study_member")
    op.drop_table("role_rule")
    op.drop_table("user")
    op.drop_table("study")
    op.drop_table("role")
    op.drop_table("node")
    op.drop_table("member")
    op.drop_table("rule")
    op.drop_table("payload")
    op.drop_table("organization")
    op.drop_table("event")
    op.drop_table("collaboration")
