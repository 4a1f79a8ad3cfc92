"""The server's audit trail: what each transaction changed, written into that very transaction.

Nobody has to remember it. Every row that is made, changed or deleted through a session leaves a record when the
session's transaction is committed, whichever service did it; services add what is no change of a row (a log-in, a
token) by :func:`note`. What can't be recorded is not committed.

Of a changed row the record has the names of the columns, and the values of those in ``_TOLD`` only: a new column is
silent until somebody decides that it holds no secret.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, event, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import (
    InstanceState,
    ORMExecuteState,
    Session,
    UOWTransaction,
    make_transient_to_detached,
    sessionmaker,
)
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import PassiveFlag

from skerry.audit import Deed, Head, Record, What, Who, follow
from skerry.errors import NotRecorded
from skerry.wire import canonical
from skerry_server.keepsakes import kept
from skerry_server.models import AuditRecord, Base, audit_head

SERVER = Who("server")
NOBODY = Who("nobody")
"""Who calls without a token."""

UNRECORDED = "skerry_unrecorded"
"""Execution option of a statement whose change of many rows is of no interest: it renews leases, say."""

_PENDING = "audit_pending"
_ACTOR = "audit_actor"
_LONGEST = 1024

_SILENT = frozenset({"event", "payload", "rule", "node_setting", "failure", "audit", "audit_head", "answered"})
"""Tables that are no deed of anybody: hints, the bytes of runs, the policy's own rows, what nodes tell of themselves
whenever they come, counted failures (the log-in's own record is a deed), answers for those who ask again, the trail
itself."""

_QUIET: Mapping[str, frozenset[str]] = {
    "node": frozenset({"online", "last_seen"}),
    "run": frozenset({"lease_expires", "live_log", "log", "cleanup_at"}),
    "task": frozenset({"status", "finished_at", "job_id"}),
    "user": frozenset({"last_seen", "failed_logins", "otp_step"}),
}
"""Columns whose change alone is no deed: signs of life, and what follows other rows."""

_TOLD = frozenset(
    {
        *("name", "username", "is_default", "domain", "epoch", "locked_until", "disabled", "ip", "url", "everywhere"),
        *("organization_id", "collaboration_id", "study_id", "task_id", "run_id", "node_id", "user_id", "store_id"),
        *("init_org_id", "init_user_id", "parent_id", "parent_run_id", "job_id", "uuid", "image", "format"),
        *("state", "attempt", "reason", "accept", "encrypted", "staged_attempt", "port", "label", "sha256", "size"),
    }
)
_TOLD_MEMBERS = frozenset({"organizations", "collaborations", "roles", "rules"})
_HASHED = frozenset({"public_key", "signing_key"})
_OWNERS: Mapping[str, tuple[str, ...]] = {
    "organization": ("organization_id", "init_org_id"),
    "collaboration": ("collaboration_id",),
    "task": ("task_id",),
    "run": ("run_id",),
}


def act_as(session: Session, actor: Who) -> None:
    """From now on the transaction's deeds are this caller's; without it they are the server's own."""
    session.info[_ACTOR] = actor


def actor_of(session: Session) -> Who:
    """Who acts in this transaction."""
    actor: Who = session.info.get(_ACTOR, SERVER)
    return actor


def note(
    session: Session,
    action: str,
    object_: What,
    about: Mapping[str, int | None] | None = None,
    **details: Any,
) -> None:
    """Records what is no change of a row, when the transaction is committed."""
    owners = {name: id_ for name, id_ in (about or {}).items() if id_ is not None}
    _pending(session).entries.append(Deed(actor_of(session), action, object_, owners, details))


# --- what changed ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Change:
    """What happened to one row in a transaction, all its flushes together."""

    actor: Who
    kind: str
    table: str
    id: int | None
    about: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    def deed(self) -> Deed:
        state = self.columns.get("state")
        verb = state if self.table == "run" and self.kind == "change" and isinstance(state, str) else self.kind
        silent = sorted(name for name, value in self.columns.items() if value is _UNTOLD)
        told = {name: value for name, value in self.columns.items() if value is not _UNTOLD}
        details = {**told, "changed": silent} if silent else told
        return Deed(self.actor, f"{self.table}.{verb}", What(self.table, self.id), self.about, details)


@dataclass(slots=True)
class _Pending:
    """What is to be recorded, in its order; ``rows`` finds the first change of each row among it."""

    entries: list[Deed | _Change] = field(default_factory=list)
    rows: dict[tuple[str, int | None], _Change] = field(default_factory=dict)

    def deeds(self) -> list[Deed]:
        return [entry.deed() if isinstance(entry, _Change) else entry for entry in self.entries]


_UNTOLD = object()


def watch(sessions: sessionmaker[Session]) -> None:
    """From now on whatever these sessions change is noted."""
    event.listen(sessions, "after_flush", _after_flush)
    event.listen(sessions, "do_orm_execute", _on_statement)
    event.listen(sessions, "after_rollback", _after_rollback)


def _after_rollback(session: Session) -> None:
    """What was undone was not done."""
    session.info.pop(_PENDING, None)


def _pending(session: Session) -> _Pending:
    pending: _Pending = session.info.setdefault(_PENDING, _Pending())
    return pending


def _after_flush(session: Session, _flush: UOWTransaction) -> None:
    """The session still shows what was new, changed and deleted, and new rows have their ids."""
    for kind, rows in (("create", session.new), ("change", session.dirty), ("delete", session.deleted)):
        for row in rows:
            state: InstanceState[Any] = inspect(row)
            table = state.mapper.local_table.name  # type: ignore[attr-defined]
            columns = {} if kind == "delete" else _columns(state, new=kind == "create")
            if table in _SILENT or (kind == "change" and not set(columns) - _QUIET.get(table, frozenset())):
                continue
            _merge(session, kind, table, state.dict, columns)


def add_rows(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
    """Writes rows, which all name the same columns, at once, and notes them as those that a session itself adds.

    Gives their ids, in the same order. For what comes by tens: the session's own way takes several times longer.
    """
    if not rows:
        return []
    name = model.__tablename__
    ids = session.connection().scalars(_inserting(model), rows).all()
    if name not in _SILENT:
        for id_, row in zip(ids, rows, strict=True):
            told = {column: _told(column, value) for column, value in row.items() if value is not None}
            _merge(session, "create", name, {**row, "id": id_}, told)
    return ids


def add_row(session: Session, row: Base) -> None:
    """Writes a new object of which nothing refers to another new one; the session then has it as if it had read it.

    Takes a third of the time of the session's own way. What the object was not given is null, whatever its default.
    """
    given = inspect(row).dict
    values = {column.key: given.get(column.key) for column in type(row).__table__.columns if column.key != "id"}
    [id_] = add_rows(session, type(row), [values])
    for name, value in [*values.items(), ("id", id_)]:
        set_committed_value(row, name, value)
    make_transient_to_detached(row)
    session.add(row)


@functools.cache
def _inserting(model: type[Base]) -> Any:
    table = cast("Table", model.__table__)
    return insert(table).returning(table.c.id, sort_by_parameter_order=True)


def _merge(session: Session, kind: str, table: str, row: Mapping[str, Any], columns: dict[str, Any]) -> None:
    pending, id_ = _pending(session), row.get("id")
    earlier = pending.rows.get((table, id_))
    if earlier is not None and kind == "change":
        earlier.columns.update(columns)
        earlier.about.update(_about(table, row))
        return
    quiet = _QUIET.get(table, frozenset())
    interesting = {name: value for name, value in columns.items() if name not in quiet}
    change = _Change(actor_of(session), kind, table, id_, _about(table, row), interesting)
    pending.entries.append(change)
    pending.rows.setdefault((table, id_), change)


def _columns(state: InstanceState[Any], *, new: bool) -> dict[str, Any]:
    """The columns and memberships that changed, with the new values of those that are told."""
    found: dict[str, Any] = {}
    for name in state.committed_state:  # what was set since the row was read
        if name == "id" or not state.get_history(name, PassiveFlag.PASSIVE_NO_INITIALIZE).has_changes():
            continue
        if name in state.mapper.columns:
            found[name] = _told(name, state.dict.get(name))
        elif name in _TOLD_MEMBERS:
            found[name] = sorted(inspect(one).dict.get("id", 0) for one in state.dict.get(name, ()))
    return {name: value for name, value in found.items() if not (new and value is None)}


def _told(name: str, value: object) -> Any:
    if name in _HASHED:
        return f"sha256:{hashlib.sha256(value).hexdigest()}" if isinstance(value, bytes) else None
    if name not in _TOLD:
        return _UNTOLD
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value[:_LONGEST] if isinstance(value, str) else value


def _about(table: str, row: Mapping[str, Any]) -> dict[str, int]:
    """Where the row belongs: by its own foreign keys, and the row itself."""
    about: dict[str, int] = {}
    for owner, names in _OWNERS.items():
        candidates = [row.get("id")] if owner == table else [row.get(name) for name in names]
        found = next((id_ for id_ in candidates if isinstance(id_, int)), None)
        if found is not None:
            about[owner] = found
    return about


def _on_statement(execution: ORMExecuteState) -> None:
    """A statement that changes many rows at once passes the session by; it leaves one record of its own."""
    changes = execution.is_update or execution.is_delete or execution.is_insert
    if not changes or execution.execution_options.get(UNRECORDED):
        return
    table = getattr(execution.statement, "table", None)
    name = str(getattr(table, "name", "rows"))
    if name not in _SILENT:
        kind = "delete" if execution.is_delete else "change"
        _pending(execution.session).entries.append(_Change(actor_of(execution.session), kind, name, None))


# --- the chain ---------------------------------------------------------------------------------------------


class Trail:
    """Writes one chain.

    Between the first record of a transaction and its commit nobody else may write to the chain: a lock holds the other
    threads, the row of the head other processes that share the writer.
    """

    def __init__(self, writer: str, clock: Callable[[], datetime]) -> None:
        self.writer = writer
        self._clock = clock
        self._lock = threading.Lock()
        self._head: Head | None = None
        """As this process left it, unless another one that shares the writer has gone on since."""

    @contextmanager
    def writing(self, session: Session) -> Iterator[None]:
        """Records what the session noted and changed; the block commits. Raises NotRecorded."""
        session.flush()
        deeds = session.info.pop(_PENDING, _Pending()).deeds()
        if not deeds:
            yield
            return
        with self._lock:
            known, self._head = self._head, None
            try:
                head = self._append(session.connection(), known, deeds)
            except (SQLAlchemyError, ValueError, TypeError) as error:
                raise NotRecorded(_SENTENCE) from error
            yield
            self._head = head

    def head(self, session: Session) -> Head:
        """As it was when the transaction began. Raises NotRecorded."""
        try:
            return _read_head(session.connection(), self.writer, lock=False)
        except SQLAlchemyError as error:
            raise NotRecorded(_SENTENCE) from error

    def _now(self) -> str:
        return self._clock().isoformat(timespec="microseconds") + "Z"

    def _append(self, connection: Connection, known: Head | None, deeds: list[Deed]) -> Head:
        """The head then. ``known``: where it probably is, which saves a look."""
        records = _follow_all(known, deeds, self._now()) if known is not None else []
        if known is None or not _move(connection, known, records[-1].head):
            known = _read_head(connection, self.writer, lock=True)
            records = _follow_all(known, deeds, self._now())
            _move(connection, known, records[-1].head)
        connection.execute(_ADD, [_row(record) for record in records])
        return records[-1].head


_SENTENCE = (
    "The server can't write its audit trail, so it changes nothing: its administrator looks at the database's disk and "
    "at the tables audit and audit_head."
)


# Built once: to build a statement takes longer than to run these.
_ADD = insert(AuditRecord.__table__)  # type: ignore[arg-type]
_HEAD = select(audit_head.c.sequence, audit_head.c.hash).where(audit_head.c.writer == bindparam("writer_"))
_LOCKED_HEAD = _HEAD.with_for_update()
_values: dict[str, Any] = {"sequence": bindparam("sequence_"), "hash": bindparam("hash_")}
_MOVE = (
    update(audit_head)
    .where(
        audit_head.c.writer == bindparam("writer_"),
        audit_head.c.sequence == bindparam("from_sequence"),
        audit_head.c.hash == bindparam("from_hash"),
    )
    .values(_values)
)
_START = insert(audit_head).values(writer=bindparam("writer_"), **_values)


def _read_head(connection: Connection, writer: str, *, lock: bool) -> Head:
    row = connection.execute(_LOCKED_HEAD if lock else _HEAD, {"writer_": writer}).one_or_none()
    return Head(writer) if row is None else Head(writer, row.sequence, row.hash)


def _follow_all(head: Head, deeds: Iterable[Deed], now: str) -> list[Record]:
    """A record of each deed, behind this head."""
    records: list[Record] = []
    for deed in deeds:
        records.append(follow(head, deed, now))
        head = records[-1].head
    return records


def _move(connection: Connection, before: Head, after: Head) -> bool:
    """Whether the head was there; nobody else moves it until the transaction ends."""
    values = {"writer_": after.writer, "sequence_": after.sequence, "hash_": after.hash}
    if not before.sequence:
        connection.execute(_START, values)
        return True
    where = {"from_sequence": before.sequence, "from_hash": before.hash}
    return connection.execute(_MOVE, {**values, **where}).rowcount == 1


def _row(record: Record) -> dict[str, Any]:
    deed, about = record.deed, record.deed.about
    return {
        "writer": record.writer,
        "sequence": record.sequence,
        "previous": record.previous,
        "time": record.time,
        "actor_kind": deed.actor.kind,
        "actor_id": deed.actor.id,
        "actor_organization_id": deed.actor.organization,
        "action": deed.action,
        "object_kind": deed.object.kind,
        "object_id": deed.object.id,
        "organization_id": about.get("organization"),
        "collaboration_id": about.get("collaboration"),
        "task_id": about.get("task"),
        "run_id": about.get("run"),
        "details": canonical(dict(deed.details)).decode("ascii"),
        "hash": record.hash,
    }


def kept_writer(folder: Path, process: int = 0) -> str:
    """The name of this installation's chain, made once and kept in its state folder. Raises ConfigurationError.

    Of several processes each has its own, so that none waits for another one's commit.
    """
    name = f"audit-writer-{process}" if process else "audit-writer"
    return kept(folder / name, lambda: f"server-{secrets.token_hex(8)}")
