"""The audit trail, for those who may read it."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry_server.doors.fields import LARGEST_ID, Id, Query
from skerry_server.doors.handling import Call, calls
from skerry_server.policy import Kind
from skerry_server.services import audit

Word = Annotated[str, Field(max_length=64)]


class AuditQuery(Query):
    run_id: Id | None = None
    task_id: Id | None = None
    collaboration_id: Id | None = None
    organization_id: Id | None = None
    actor: Word | None = None
    actor_id: Id | None = None
    action: Word | None = None
    after: Annotated[int, Field(ge=0, le=LARGEST_ID)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@calls(Kind.USER, query=AuditQuery)
def list_records(call: Call, query: AuditQuery) -> dict[str, Any]:
    wanted = audit.Filter(**query.model_dump(exclude={"after", "limit"}))
    rows = audit.find_records(call.session, call.actor, wanted, query.after, query.limit)
    shown = [{"id": row.id, **audit.as_record(row).as_dict()} for row in rows]
    return {"data": shown, "next": rows[-1].id if len(rows) == query.limit else None}


def register(door: Blueprint) -> None:
    door.get("/audit")(list_records)
