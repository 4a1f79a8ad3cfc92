"""Reading the audit trail: who may see which records, and all of it for an export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, false, or_, select, true
from sqlalchemy.orm import Session

from skerry.audit import Deed, Head, Record, What, Who
from skerry_server.errors import PermissionDenied
from skerry_server.models import AuditRecord, audit_head
from skerry_server.policy import Actor, Operation, Resource, Scope

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are asked for; None: all. ``actor`` and ``actor_id`` name who acted, such as user and 3."""

    run_id: int | None = None
    task_id: int | None = None
    collaboration_id: int | None = None
    organization_id: int | None = None
    actor: str | None = None
    actor_id: int | None = None
    action: str | None = None


def find_records(session: Session, actor: Actor, wanted: Filter, after: int, limit: int) -> Sequence[AuditRecord]:
    """At most ``limit`` of the records that the caller may see, oldest first, after the one with that id.

    Raises PermissionDenied when the caller may see none at all.
    """
    if not actor.scopes(Resource.AUDIT, Operation.VIEW):
        raise PermissionDenied
    statement = select(AuditRecord).where(AuditRecord.id > after, visible_records(actor), *_conditions(wanted))
    return session.scalars(statement.order_by(AuditRecord.id).limit(limit)).all()


def visible_records(actor: Actor) -> ColumnElement[bool]:
    """What concerns one's organization or was done by it; by rule also what belongs to its collaborations."""
    scopes = actor.scopes(Resource.AUDIT, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    own = actor.organization_id
    mine = or_(AuditRecord.organization_id == own, AuditRecord.actor_organization_id == own)
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.ORGANIZATION in scopes:
        reached.append(mine)
    if Scope.COLLABORATION in scopes:
        reached += [AuditRecord.collaboration_id.in_(actor.collaborations)]
        # Of partners' own affairs, such as their users, nothing: those belong to no collaboration.
        reached += [mine]
    return or_(*reached)


def read_trail(session: Session) -> Iterator[Record]:
    """All records, oldest first."""
    last = 0
    while rows := _records_after(session, last):
        yield from map(as_record, rows)
        last = rows[-1].id


def _records_after(session: Session, id_: int) -> Sequence[AuditRecord]:
    statement = select(AuditRecord).where(AuditRecord.id > id_).order_by(AuditRecord.id).limit(_AT_ONCE)
    rows = session.scalars(statement).all()
    session.expunge_all()
    return rows


def read_heads(session: Session) -> list[Head]:
    """What each writer noted as the end of its chain."""
    rows = session.execute(select(audit_head).order_by(audit_head.c.writer))
    return [Head(row.writer, row.sequence, row.hash) for row in rows]


def as_record(row: AuditRecord) -> Record:
    """The link as it was made. Details that are not JSON any more become what no hash fits."""
    about = {
        "organization": row.organization_id,
        "collaboration": row.collaboration_id,
        "task": row.task_id,
        "run": row.run_id,
    }
    try:
        details = json.loads(row.details)
    except ValueError:
        details = {"damaged": True}
    deed = Deed(
        Who(row.actor_kind, row.actor_id, row.actor_organization_id),
        row.action,
        What(row.object_kind, row.object_id),
        {name: id_ for name, id_ in about.items() if id_ is not None},
        details if isinstance(details, dict) else {"damaged": True},
    )
    return Record(row.writer, row.sequence, row.previous, row.time, deed, row.hash)


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    columns = {
        AuditRecord.run_id: wanted.run_id,
        AuditRecord.task_id: wanted.task_id,
        AuditRecord.collaboration_id: wanted.collaboration_id,
        AuditRecord.organization_id: wanted.organization_id,
        AuditRecord.actor_kind: wanted.actor,
        AuditRecord.actor_id: wanted.actor_id,
        AuditRecord.action: wanted.action,
    }
    return (and_(column == value) for column, value in columns.items() if value is not None)
