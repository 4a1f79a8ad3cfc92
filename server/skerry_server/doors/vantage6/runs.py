"""Runs and results (contract, section 2.10)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint
from pydantic import Field
from sqlalchemy import ColumnElement, Select, bindparam, select
from sqlalchemy.orm import joinedload, undefer

from skerry.wire import from_stored, from_stored_pieces
from skerry_server.doors.fields import Id, Query, Words
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.rendering import LongText
from skerry_server.doors.vantage6 import answers
from skerry_server.doors.vantage6.paging import EVERYTHING_OF_A_TASK, PER_PAGE, Listing, common, named, paged, rare
from skerry_server.doors.vantage6.shapes import moment, one
from skerry_server.doors.vantage6.task_shape import show as show_task
from skerry_server.lifecycle import explain
from skerry_server.models import Node, Payload, Port, Run, Task
from skerry_server.policy import Kind
from skerry_server.services import runs

_OWN = (
    joinedload(Run.node).load_only(Node.name, Node.ip, Node.online, Node.last_seen),
    joinedload(Run.input),
    undefer(Run.log),
)
_FORMAT = joinedload(Run.task).load_only(Task.format)
LOADED = (*_OWN, _FORMAT)
"""What showing a run takes, where its task is a link."""
_PORTS = (
    select(Port.run_id, Port.id, Port.port, Port.label)
    .where(Port.run_id.in_(bindparam("runs", expanding=True)))
    .order_by(Port.port)
)

SORTS = named(
    Run.id,
    Run.assigned_at,
    Run.started_at,
    Run.finished_at,
    Run.task_id,
    Run.organization_id,
    Run.collaboration_id,
    Run.node_id,
) | {"status": Run.state}
_TIMES: dict[str, Any] = {"assigned": Run.assigned_at, "started": Run.started_at, "finished": Run.finished_at}


class RunQuery(Listing):
    organization_id: Id | None = None
    task_id: Id | None = None
    node_id: Id | None = None
    collaboration_id: Id | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    state: Literal["open"] | None = None
    assigned_from: datetime | None = None
    assigned_till: datetime | None = None
    started_from: datetime | None = None
    started_till: datetime | None = None
    finished_from: datetime | None = None
    finished_till: datetime | None = None
    include: Words = Field(default_factory=list)

    def apply(self, statement: Select[Run]) -> Select[Run]:
        """All but the times."""
        for column in (Run.organization_id, Run.task_id, Run.node_id, Run.collaboration_id):
            value = getattr(self, column.key)
            if value is not None:
                statement = statement.where(column == value)
        if self.port is not None:
            statement = statement.where(Run.id.in_(select(Port.run_id).where(Port.port == self.port)))
        return statement.where(Run.finished_at.is_(None)) if self.state is not None else statement

    @property
    def times(self) -> list[ColumnElement[bool]]:
        """Between which ones runs are to lie."""
        since = [(column, getattr(self, f"{name}_from")) for name, column in _TIMES.items()]
        until = [(column, getattr(self, f"{name}_till")) for name, column in _TIMES.items()]
        return [
            *(column >= time for column, time in since if time is not None),
            *(column <= time for column, time in until if time is not None),
        ]

    @property
    def usual_page(self) -> int:
        """A task's runs come all at once: the clients do not look at the links."""
        return EVERYTHING_OF_A_TASK if self.task_id is not None else PER_PAGE


class Include(Query):
    include: Words = Field(default_factory=list)


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=RunQuery, answer=answers.Page[answers.Run])
def list_runs(call: Call, query: RunQuery) -> Reply:
    nested = "task" in query.include
    loaded = (*_OWN, joinedload(Run.task)) if nested else LOADED
    statement = select(Run).where(runs.visible_runs(call.actor)).options(*loaded)

    def shown(call: Call, rows: Sequence[Run]) -> list[dict[str, Any]]:
        return show_all(call, rows, nested=nested)

    return _listed(call, statement, query, shown)


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=Include, answer=answers.Run)
def get_run(call: Call, id_: int, query: Include) -> dict[str, Any]:
    return show_all(call, [runs.find_run(call.session, call.actor, id_)], nested="task" in query.include)[0]


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=RunQuery, answer=answers.Page[answers.Result])
def list_results(call: Call, query: RunQuery) -> Reply:
    statement = select(Run).where(runs.visible_results(call.actor)).options(_FORMAT, joinedload(Run.result))
    return _listed(call, statement, query, show_results)


def _listed(
    call: Call, statement: Select[Run], query: RunQuery, show: Callable[[Call, Sequence[Run]], list[dict[str, Any]]]
) -> Reply:
    statement = query.apply(statement)
    narrow = statement.where(*(rare(call, between) for between in query.times)) if query.times else None
    statement = statement.where(*(common(call, between) for between in query.times))
    return paged(
        call,
        statement,
        query,
        show,
        sorts=SORTS,
        default=Run.id.desc(),
        per_page=query.usual_page,
        narrow=narrow,
    )


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.Result)
def get_result(call: Call, id_: int) -> dict[str, Any]:
    return show_results(call, [runs.find_result(call.session, call.actor, id_)])[0]


def register(door: Blueprint) -> None:
    door.get("/run", endpoint="runs")(list_runs)
    door.get("/run/<id:id_>", endpoint="run")(get_run)
    door.get("/result", endpoint="results")(list_results)
    door.get("/result/<id:id_>", endpoint="result")(get_result)


def readable(call: Call, rows: Sequence[Task]) -> set[int]:
    """The ids of those runs of these tasks whose results the caller may read."""
    ids = [task.id for task in rows]
    allowed = select(Run.id).where(Run.task_id.in_(ids), runs.visible_results(call.actor))
    return set(call.session.scalars(allowed))


def show_all(call: Call, rows: Sequence[Run], *, nested: bool = False) -> list[dict[str, Any]]:
    ports = _ports(call, [run.id for run in rows])
    return [_show(call, run, ports.get(run.id, []), nested=nested) for run in rows]


def _ports(call: Call, run_ids: Sequence[int]) -> Mapping[int, list[dict[str, Any]]]:
    """The ports of each run, as they are shown."""
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for run_id, id_, port, label in call.session.connection().execute(_PORTS, {"runs": run_ids}):
        found[run_id].append({"id": id_, "port": port, "label": label})
    return found


def show_results(call: Call, rows: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "id": run.id,
            "result": _text(call, run, run.result),
            "cleanup_at": moment(run.cleanup_at),
            "blob_storage_used": run.result is not None and run.result.blob is not None,
            "run": one(call, "run", run.id),
            "task": one(call, "task", run.task_id),
        }
        for run in rows
    ]


def _show(call: Call, run: Run, ports: list[dict[str, Any]], *, nested: bool) -> dict[str, Any]:
    node = run.node
    task = one(call, "task", run.task_id)
    if nested:
        task = {key: value for key, value in show_task(call, run.task).items() if key != "runs"}
    return {
        "id": run.id,
        "input": _text(call, run, run.input),
        "status": run.state.shown,
        "log": run.log,
        "reason": run.reason or explain(run.state),
        "attempt": run.attempt,
        "assigned_at": moment(run.assigned_at),
        "started_at": moment(run.started_at),
        "finished_at": moment(run.finished_at),
        "cleanup_at": moment(run.cleanup_at),
        "blob_storage_used": run.input.blob is not None,
        "organization": one(call, "organization", run.organization_id),
        "task": task,
        "results": one(call, "result", run.id),
        "node": node
        and {
            "id": node.id,
            "ip": node.ip,
            "status": "online" if node.is_online(call.now) else "offline",
            "name": node.name,
        },
        "ports": ports,
    }


def _text(call: Call, run: Run, payload: Payload | None) -> str | LongText | None:
    """The string of the wire, or where to fetch it; null for what is not there yet, or not any more."""
    if payload is None or run.cleanup_at is not None:
        return None
    if payload.blob is not None:
        return payload.blob
    store, format_ = call.server.payloads, run.task.format
    if payload.file is None:
        return from_stored(store.load(payload), format_)
    stored = store.offer(payload)
    return LongText(lambda: from_stored_pieces(stored(), format_))
