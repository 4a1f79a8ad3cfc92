"""Waiting for a task by a push."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from flask import Blueprint
from pydantic import Field

from skerry.wire import canonical
from skerry_server.doors.fields import Query
from skerry_server.doors.handling import Call, Wait, calls
from skerry_server.policy import Kind
from skerry_server.services import waits


class WaitQuery(Query):
    """``until``: nothing is news but the end. Each change that is told costs whoever waits a call more."""

    seen: Annotated[str, Field(max_length=64)] = ""
    timeout: Annotated[float, Field(ge=0, le=60)] = 30
    until: Literal["finished"] | None = None


@calls(Kind.USER, Kind.RUN, query=WaitQuery)
def wait(call: Call, id_: int, query: WaitQuery) -> dict[str, Any] | Wait:
    ticket = call.server.hub.ticket(
        waits.end_topics(call.actor, id_) if query.until else waits.topics(call.session, call.actor, id_)
    )
    call.look_anew()
    progress = waits.progress(call.session, call.actor, id_, call.now)
    shown = {
        "id": progress.task_id,
        "status": progress.status,
        "finished": progress.finished,
        "runs": [
            {
                "id": run.id,
                "organization_id": run.organization_id,
                "node_id": run.node_id,
                "status": run.status,
                "node_online": run.node_online,
                "node_refuses": run.node_refuses,
                **({"live_log": run.live_log} if call.actor.kind is Kind.USER else {}),
            }
            for run in progress.runs
        ],
    }
    seen = hashlib.sha256(canonical(shown)).hexdigest()[:16]
    answer = {**shown, "seen": seen}
    news = progress.finished or not (query.until or seen == query.seen)
    return answer if news else Wait(answer, ticket, query.timeout)


def register(door: Blueprint) -> None:
    door.get("/task/<id:id_>/wait")(wait)
