"""The tables. Ids are never used twice (AUTOINCREMENT), so nothing inherits what a deleted row left behind.

Times are naive UTC, as the dialects show them. Tables are made by migrations only; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column, relationship

from skerry.wire import Format, Status
from skerry_server.lifecycle import State

NAME = 128
ONLINE_FOR = timedelta(seconds=55)
"""A node that was not heard of for longer is offline: one that waits asks anew every 25 seconds."""

_CASCADE = "CASCADE"
_SET_NULL = "SET NULL"
_KEPT = text("cleanup_at IS NULL")
_OPEN = text("finished_at IS NULL")


def utcnow() -> datetime:
    """Now, as the tables keep it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _words(vocabulary: type[StrEnum]) -> Enum:
    """A column that holds the words of a vocabulary, as text: a new word needs no change of the table."""
    return Enum(vocabulary, native_enum=False, length=32, values_callable=lambda words: [str(word) for word in words])


def _by_beginning(table: str, column: str) -> tuple[Index, Index]:
    """What finds texts that begin so: PostgreSQL compares them as they are, SQLite without regard to case."""
    patterns = Index(f"ix_{table}_{column}_pattern", column, postgresql_ops={column: "varchar_pattern_ops"})
    folded = Index(f"ix_{table}_{column}_folded", text(f"{column} COLLATE NOCASE"))
    return patterns.ddl_if(dialect="postgresql"), folded.ddl_if(dialect="sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[dict[str, Any]]: JSON, list[str]: JSON}  # noqa: RUF012 - the same
    __table_args__: Any = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy wants a dict

    id: Mapped[int] = mapped_column(primary_key=True)


member = Table(
    "member",
    Base.metadata,
    Column("collaboration_id", ForeignKey("collaboration.id", ondelete=_CASCADE), primary_key=True),
    Column("organization_id", ForeignKey("organization.id", ondelete=_CASCADE), primary_key=True, index=True),
)
study_member = Table(
    "study_member",
    Base.metadata,
    Column("study_id", ForeignKey("study.id", ondelete=_CASCADE), primary_key=True),
    Column("organization_id", ForeignKey("organization.id", ondelete=_CASCADE), primary_key=True, index=True),
)
role_rule = Table(
    "role_rule",
    Base.metadata,
    Column("role_id", ForeignKey("role.id", ondelete=_CASCADE), primary_key=True),
    Column("rule_id", ForeignKey("rule.id", ondelete=_CASCADE), primary_key=True, index=True),
)
user_role = Table(
    "user_role",
    Base.metadata,
    Column("user_id", ForeignKey("user.id", ondelete=_CASCADE), primary_key=True),
    Column("role_id", ForeignKey("role.id", ondelete=_CASCADE), primary_key=True, index=True),
)
user_rule = Table(
    "user_rule",
    Base.metadata,
    Column("user_id", ForeignKey("user.id", ondelete=_CASCADE), primary_key=True),
    Column("rule_id", ForeignKey("rule.id", ondelete=_CASCADE), primary_key=True, index=True),
)


class Organization(Base):
    """``public_key`` is PEM; ``signing_key`` and ``binding`` come with native keys only.

    ``revocation`` is the organization's newest list of users whose certificates are void, as it was signed.
    """

    __tablename__ = "organization"

    name: Mapped[str] = mapped_column(String(NAME), unique=True)
    domain: Mapped[str | None] = mapped_column(String(NAME))
    address1: Mapped[str | None] = mapped_column(String(NAME))
    address2: Mapped[str | None] = mapped_column(String(NAME))
    zipcode: Mapped[str | None] = mapped_column(String(NAME))
    country: Mapped[str | None] = mapped_column(String(NAME), index=True)
    public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    signing_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    binding: Mapped[bytes | None] = mapped_column(LargeBinary)
    revocation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    successions: Mapped[list[Succession]] = relationship(order_by="Succession.id", passive_deletes=True)


class Succession(Base):
    """An organization's word, signed by its old key, that new keys take the place of the old ones."""

    __tablename__ = "succession"

    organization_id: Mapped[int] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE), index=True)
    statement: Mapped[dict[str, Any]]


class Collaboration(Base):
    """``accept`` is "native", "vantage6" or "both"; it counts only where ``encrypted``."""

    __tablename__ = "collaboration"

    name: Mapped[str] = mapped_column(String(NAME), unique=True)
    encrypted: Mapped[bool]
    accept: Mapped[str] = mapped_column(String(16))

    organizations: Mapped[list[Organization]] = relationship(secondary=member, order_by=Organization.id)


class Study(Base):
    __tablename__ = "study"

    name: Mapped[str] = mapped_column(String(NAME), unique=True)
    collaboration_id: Mapped[int] = mapped_column(ForeignKey("collaboration.id", ondelete=_CASCADE), index=True)

    organizations: Mapped[list[Organization]] = relationship(secondary=study_member, order_by=Organization.id)


class Node(Base):
    """``api_key`` is the SHA-256 of the key. ``online`` is what was last announced; :meth:`is_online` is what is so.

    ``refuses`` is the kind of reason for which the node takes no runs, null while it takes some.
    ``next_api_key`` takes its place when the node first logs in with it. ``epoch`` counts the keys: tokens of an
    earlier one are dead.
    """

    __tablename__ = "node"
    __table_args__ = (UniqueConstraint("organization_id", "collaboration_id"), Base.__table_args__)

    name: Mapped[str] = mapped_column(String(NAME * 2 + 16), unique=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE))
    collaboration_id: Mapped[int] = mapped_column(ForeignKey("collaboration.id", ondelete=_CASCADE), index=True)
    api_key: Mapped[str] = mapped_column(String(64), unique=True)
    next_api_key: Mapped[str | None] = mapped_column(String(64), index=True)
    epoch: Mapped[int] = mapped_column(default=1)
    ip: Mapped[str | None] = mapped_column(String(64))
    last_seen: Mapped[datetime | None] = mapped_column(index=True)
    online: Mapped[bool] = mapped_column(default=False, index=True)
    refuses: Mapped[str | None] = mapped_column(String(16))

    organization: Mapped[Organization] = relationship()
    collaboration: Mapped[Collaboration] = relationship()
    settings: Mapped[list[NodeSetting]] = relationship(order_by="NodeSetting.id", cascade="all, delete-orphan")

    def is_online(self, now: datetime) -> bool:
        """Whether the node has said so and was heard of lately."""
        return self.online and self.last_seen is not None and self.last_seen > now - ONLINE_FOR

    def why_not(self, now: datetime) -> str | None:
        """The kind of reason for which the node, being online, takes no runs."""
        return self.refuses if self.is_online(now) else None


class NodeSetting(Base):
    """A line of what a node tells of its own configuration; a key with several values has several."""

    __tablename__ = "node_setting"

    node_id: Mapped[int] = mapped_column(ForeignKey("node.id", ondelete=_CASCADE), index=True)
    key: Mapped[str] = mapped_column(String(NAME))
    value: Mapped[str] = mapped_column(String(1024))


class Invitation(Base):
    """Who shows the secret, of which this is the SHA-256, gets the node's API key, once."""

    __tablename__ = "invitation"

    node_id: Mapped[int] = mapped_column(ForeignKey("node.id", ondelete=_CASCADE), unique=True)
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    expires: Mapped[datetime]

    node: Mapped[Node] = relationship()


class Failure(Base):
    """Somebody at this address showed a password, a code, a key or a token that was none."""

    __tablename__ = "failure"
    __table_args__ = (Index(None, "address", "at"), Base.__table_args__)

    address: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(index=True)


class Rule(Base):
    """A row of the policy's table, so that roles and users can point at it."""

    __tablename__ = "rule"
    __table_args__ = (UniqueConstraint("name", "operation", "scope"), Base.__table_args__)

    name: Mapped[str] = mapped_column(String(32))
    operation: Mapped[str] = mapped_column(String(16), index=True)
    scope: Mapped[str] = mapped_column(String(16), index=True)
    description: Mapped[str] = mapped_column(String(256))


class Role(Base):
    """``organization_id`` is null in a role that all may use."""

    __tablename__ = "role"
    __table_args__ = (UniqueConstraint("name", "organization_id"), Base.__table_args__)

    name: Mapped[str] = mapped_column(String(NAME))
    description: Mapped[str | None] = mapped_column(String(1024))
    organization_id: Mapped[int | None] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE), index=True)
    is_default: Mapped[bool] = mapped_column(default=False)

    rules: Mapped[list[Rule]] = relationship(secondary=role_rule, order_by=Rule.id)


class User(Base):
    """``epoch`` counts the passwords: tokens of an earlier one are dead.

    ``otp_step`` is the time step of the last code that was used: none is taken twice. ``mailed_at``: the last letter.
    Who is ``disabled`` can't log in.
    """

    __tablename__ = "user"

    username: Mapped[str] = mapped_column(String(NAME), unique=True)
    email: Mapped[str] = mapped_column(String(NAME), unique=True)
    firstname: Mapped[str | None] = mapped_column(String(NAME))
    lastname: Mapped[str | None] = mapped_column(String(NAME))
    password: Mapped[str] = mapped_column(String(256))
    organization_id: Mapped[int] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE), index=True)
    epoch: Mapped[int] = mapped_column(default=1)
    failed_logins: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    disabled: Mapped[bool] = mapped_column(default=False)
    otp_secret: Mapped[str | None] = mapped_column(String(64))
    otp_step: Mapped[int] = mapped_column(BigInteger, default=0)
    mailed_at: Mapped[datetime | None]
    last_seen: Mapped[datetime | None] = mapped_column(index=True)

    organization: Mapped[Organization] = relationship()
    roles: Mapped[list[Role]] = relationship(secondary=user_role, order_by=Role.id)
    rules: Mapped[list[Rule]] = relationship(secondary=user_rule, order_by=Rule.id)


class Task(Base):
    """``creator`` is who posted it ("user:3", "run:7"), ``fingerprint`` what: together they tell a repeat.

    ``status`` and ``finished_at`` (all runs have ended) follow the runs in the same transaction.
    ``parent_run_id`` has no foreign key: with ``run.task_id`` it would be a circle; the run goes when its task does.
    Nor has ``store_id``, which SQLite could only get with the whole table made anew; the deletion of a store clears it.
    """

    __tablename__ = "task"
    __table_args__ = (
        Index(None, "creator", "fingerprint"),
        *_by_beginning("task", "name"),
        *_by_beginning("task", "image"),
        *_by_beginning("task", "description"),
        Base.__table_args__,
    )

    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    creator: Mapped[str] = mapped_column(String(32))
    fingerprint: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(NAME), index=True)
    description: Mapped[str | None] = mapped_column(String(1024))
    image: Mapped[str] = mapped_column(String(1024), index=True)
    collaboration_id: Mapped[int] = mapped_column(ForeignKey("collaboration.id", ondelete=_CASCADE), index=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.id", ondelete=_SET_NULL), index=True)
    init_org_id: Mapped[int] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE), index=True)
    init_user_id: Mapped[int | None] = mapped_column(ForeignKey("user.id", ondelete=_SET_NULL), index=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("task.id", ondelete=_CASCADE), index=True)
    parent_run_id: Mapped[int | None] = mapped_column(index=True)
    job_id: Mapped[int | None] = mapped_column(index=True)
    store_id: Mapped[int | None] = mapped_column(index=True)
    databases: Mapped[list[dict[str, Any]]]
    format: Mapped[Format] = mapped_column(_words(Format))
    status: Mapped[Status] = mapped_column(_words(Status), default=Status.PENDING, index=True)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    collaboration: Mapped[Collaboration] = relationship()
    parent: Mapped[Task | None] = relationship(remote_side="Task.id")
    store: Mapped[AlgorithmStore | None] = relationship(
        primaryjoin="foreign(Task.store_id) == AlgorithmStore.id", viewonly=True
    )
    runs: Mapped[list[Run]] = relationship(
        back_populates="task", foreign_keys="Run.task_id", order_by="Run.id", passive_deletes=True
    )


task_database = Table(
    "task_database",
    Base.metadata,
    Column("task_id", ForeignKey("task.id", ondelete=_CASCADE), primary_key=True),
    Column("label", String(NAME), primary_key=True),
    Index(None, "label", "task_id"),
)
"""By which labels a task can be found: those of its ``databases``."""


store_member = Table(
    "store_member",
    Base.metadata,
    Column("algorithm_store_id", ForeignKey("algorithm_store.id", ondelete=_CASCADE), primary_key=True),
    Column("collaboration_id", ForeignKey("collaboration.id", ondelete=_CASCADE), primary_key=True, index=True),
)


class AlgorithmStore(Base):
    """A store that lists algorithms; for the collaborations that it is linked to, or for all where ``everywhere``."""

    __tablename__ = "algorithm_store"

    name: Mapped[str] = mapped_column(String(NAME))
    url: Mapped[str] = mapped_column(String(512), unique=True)
    everywhere: Mapped[bool] = mapped_column(default=False)

    collaborations: Mapped[list[Collaboration]] = relationship(secondary=store_member, order_by=Collaboration.id)


class Payload(Base):
    """An input or a result: ``inline`` up to the limit of the wire, else the name of a ``file`` in the store.

    ``blob`` is the UUID by which vantage6's clients fetch it, and ``format`` what it then is; null in one that travels
    with its task. ``uploader`` and ``uploaded_at`` are there while it waits for the task that it was uploaded for.
    """

    __tablename__ = "payload"

    size: Mapped[int] = mapped_column(BigInteger)
    inline: Mapped[bytes | None] = mapped_column(LargeBinary)
    file: Mapped[str | None] = mapped_column(String(64), unique=True)
    blob: Mapped[str | None] = mapped_column(String(36), unique=True)
    format: Mapped[Format | None] = mapped_column(_words(Format))
    uploader: Mapped[str | None] = mapped_column(String(32))
    uploaded_at: Mapped[datetime | None] = mapped_column(index=True)


class Run(Base):
    """One execution of a task at one organization. ``attempt`` 0 means that no node has claimed it yet.

    ``reason`` is the server's own sentence where it ended the run itself; ``log`` is the node's. ``live_log`` counts
    what the node has shown of it while the run is active; 0 when ``log`` is the whole, or nothing. At ``cleanup_at``
    the server removed the input, the result and the log.
    """

    __tablename__ = "run"
    __table_args__ = (
        Index("ix_run_claims", "state", "organization_id", "collaboration_id", "id"),
        Index(None, "state", "lease_expires"),
        Index(None, "node_id", "state"),
        Index("ix_run_kept", "finished_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
        Index("ix_run_open", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Base.__table_args__,
    )

    task_id: Mapped[int] = mapped_column(ForeignKey("task.id", ondelete=_CASCADE), index=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organization.id", ondelete=_CASCADE), index=True)
    collaboration_id: Mapped[int] = mapped_column(ForeignKey("collaboration.id", ondelete=_CASCADE), index=True)
    node_id: Mapped[int | None] = mapped_column(ForeignKey("node.id", ondelete=_SET_NULL), index=True)
    state: Mapped[State] = mapped_column(_words(State), default=State.PENDING)
    attempt: Mapped[int] = mapped_column(default=0)
    lease_expires: Mapped[datetime | None]
    input_id: Mapped[int] = mapped_column(ForeignKey("payload.id"), index=True)
    result_id: Mapped[int | None] = mapped_column(ForeignKey("payload.id"), index=True)
    staged_id: Mapped[int | None] = mapped_column(ForeignKey("payload.id"), index=True)
    staged_attempt: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(256))
    assigned_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime | None] = mapped_column(index=True)
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    cleanup_at: Mapped[datetime | None]
    log: Mapped[str | None] = deferred(mapped_column(Text))
    live_log: Mapped[int] = mapped_column(default=0)

    task: Mapped[Task] = relationship(back_populates="runs", foreign_keys=[task_id])
    node: Mapped[Node | None] = relationship()
    input: Mapped[Payload] = relationship(foreign_keys=[input_id])
    result: Mapped[Payload | None] = relationship(foreign_keys=[result_id])
    staged: Mapped[Payload | None] = relationship(foreign_keys=[staged_id])
    ports: Mapped[list[Port]] = relationship(back_populates="run", order_by="Port.port", passive_deletes=True)


class Port(Base):
    """A port at which a run's algorithm can be reached by the other runs of its job, through the VPN."""

    __tablename__ = "port"
    __table_args__ = (UniqueConstraint("run_id", "port"), Base.__table_args__)

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete=_CASCADE))
    port: Mapped[int] = mapped_column(index=True)
    label: Mapped[str | None] = mapped_column(String(NAME))
    ip: Mapped[str | None] = mapped_column(String(64))

    run: Mapped[Run] = relationship(back_populates="ports")


class Peer(Base):
    """A run in the VPN of its job, until it ends. ``statement`` is its organization's word about it, null before that.

    No two live runs of a collaboration have the same address.
    """

    __tablename__ = "peer"
    __table_args__ = (UniqueConstraint("collaboration_id", "address"), Base.__table_args__)

    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete=_CASCADE), unique=True)
    job_id: Mapped[int] = mapped_column(index=True)
    collaboration_id: Mapped[int] = mapped_column(ForeignKey("collaboration.id", ondelete=_CASCADE))
    address: Mapped[str] = mapped_column(String(15))
    statement: Mapped[dict[str, Any] | None]


class Answered(Base):
    """A request that carried a key of its caller's; hashes of both, and the answer encrypted under the key."""

    __tablename__ = "answered"

    key: Mapped[str] = mapped_column(String(64), unique=True)
    request: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(index=True)


class Event(Base):
    """That something changed, written in the same transaction as the change; ``topics`` say who should look."""

    __tablename__ = "event"

    at: Mapped[datetime] = mapped_column(index=True)
    topics: Mapped[list[str]]


class AuditRecord(Base):
    """One link of a writer's chain (``skerry.audit``). The database itself refuses to change or delete one.

    ``time`` and ``details`` are kept as the texts that the hash was made of. ``organization_id`` and the three after
    it say to what the record belongs; like all ids here they have no foreign key, since what they mean may go.
    """

    __tablename__ = "audit"
    __table_args__ = (UniqueConstraint("writer", "sequence"), Base.__table_args__)

    writer: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    previous: Mapped[str] = mapped_column(String(64))
    time: Mapped[str] = mapped_column(String(32))
    actor_kind: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[int | None]
    actor_organization_id: Mapped[int | None] = mapped_column(index=True)
    action: Mapped[str] = mapped_column(String(64))
    object_kind: Mapped[str] = mapped_column(String(64))
    object_id: Mapped[int | None]
    organization_id: Mapped[int | None] = mapped_column(index=True)
    collaboration_id: Mapped[int | None] = mapped_column(index=True)
    task_id: Mapped[int | None] = mapped_column(index=True)
    run_id: Mapped[int | None] = mapped_column(index=True)
    details: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(String(64))


audit_head = Table(
    "audit_head",
    Base.metadata,
    Column("writer", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
