"""Tasks (contract, section 2.9) and their end by hand (section 2.11)."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from skerry.wire import Status
from skerry_server import webcalls
from skerry_server.doors.fields import Body, Flag, Id, Json, Name, Query, Text, Words
from skerry_server.doors.handling import (
    Call,
    Reply,
    calls,
    current_server,
    declaring,
    once,
    open_actor,
    parse_body,
    present,
    respond,
)
from skerry_server.doors.vantage6 import answers, runs
from skerry_server.doors.vantage6.paging import Listing, beginning, common, like, named, paged
from skerry_server.doors.vantage6.stores import introduce
from skerry_server.doors.vantage6.task_shape import show
from skerry_server.errors import InvalidRequest
from skerry_server.models import (
    AlgorithmStore,
    Base,
    Collaboration,
    Organization,
    Run,
    Study,
    Task,
    User,
    task_database,
)
from skerry_server.policy import Kind
from skerry_server.services import collaborations, inputs, sharing, stores, tasks

_BASICS = "ghcr.io/vantage6/algorithm-basics:latest"
SORTS = named(
    Task.id,
    Task.name,
    Task.description,
    Task.image,
    Task.status,
    Task.created_at,
    Task.finished_at,
    Task.job_id,
    Task.parent_id,
    Task.collaboration_id,
    Task.study_id,
    Task.init_org_id,
    Task.init_user_id,
)
_REFERENCES: dict[str, tuple[type[Base], str]] = {
    "init_org_id": (Organization, "organization"),
    "init_user_id": (User, "user"),
    "collaboration_id": (Collaboration, "collaboration"),
    "study_id": (Study, "study"),
    "parent_id": (Task, "task"),
    "run_id": (Run, "run"),
    "store_id": (AlgorithmStore, "algorithm store"),
}


def _uuid(text: str) -> str:
    if str(uuid.UUID(text)) != text.lower():
        raise ValueError("It must be a UUID with hyphens.")
    return text.lower()


class Preprocessing(Body):
    function: Text
    parameters: Json | None = None


class Database(Body):
    label: Annotated[Text, Field(min_length=1, max_length=128)]
    arguments: Json | None = None
    preprocessing: Annotated[list[Preprocessing], Field(max_length=100)] | None = None
    query: Annotated[Text, Field(max_length=65_536)] | None = None
    sheet_name: Annotated[Text, Field(max_length=128)] | None = None


class Target(Body):
    id: Id
    input: str


class NewTask(Body):
    image: Annotated[Text, Field(min_length=1, max_length=1024)]
    organizations: Annotated[list[Target], Field(min_length=1, max_length=10_000)]
    collaboration_id: Id | None = None
    study_id: Id | None = None
    name: Name | None = None
    description: Annotated[Text, Field(max_length=1024)] | None = None
    databases: Annotated[list[Database], Field(max_length=100)] | None = None
    uuid: Annotated[str, AfterValidator(_uuid)] | None = None
    store_id: Id | None = None
    server_url: Annotated[Text, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> NewTask:
        if self.collaboration_id is None and self.study_id is None:
            raise ValueError('Either "collaboration_id" or "study_id" is needed.')
        return self

    def spec(self) -> tasks.TaskSpec:
        databases = tuple(database.model_dump(exclude_none=True) for database in self.databases or [])
        return tasks.TaskSpec(
            image=self.image,
            targets=tuple(inputs.Target(one.id, one.input) for one in self.organizations),
            collaboration_id=self.collaboration_id,
            study_id=self.study_id,
            name=self.name,
            description=self.description,
            databases=databases,
            uuid=self.uuid,
            store_id=self.store_id,
        )


class Columns(Body):
    """Which columns a database has."""

    collaboration_id: Id
    db_label: Annotated[Text, Field(min_length=1, max_length=128)]
    organizations: Annotated[list[Target], Field(min_length=1, max_length=10_000)]
    sheet_name: Annotated[Text, Field(max_length=128)] | None = None
    query: Annotated[Text, Field(max_length=65_536)] | None = None

    def spec(self) -> tasks.TaskSpec:
        database = self.model_dump(exclude_none=True, include={"sheet_name", "query"})
        return tasks.TaskSpec(
            image=_BASICS,
            targets=tuple(inputs.Target(one.id, one.input) for one in self.organizations),
            collaboration_id=self.collaboration_id,
            databases=({"label": self.db_label, **database},),
            name="get_column_headers",
        )


class TaskQuery(Listing):
    init_org_id: Id | None = None
    init_user_id: Id | None = None
    collaboration_id: Id | None = None
    study_id: Id | None = None
    parent_id: Id | None = None
    job_id: Id | None = None
    name: str | None = None
    image: str | None = None
    description: str | None = None
    status: Status | None = None
    run_id: Id | None = None
    store_id: Id | None = None
    database: str | None = None
    is_user_created: Flag | None = None
    include: Words = Field(default_factory=list)


class Include(Query):
    include: Words = Field(default_factory=list)


class Kill(Body):
    id: Id


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=TaskQuery, answer=answers.Page[answers.Task])
def list_tasks(call: Call, query: TaskQuery) -> Reply:
    _check_references(call, query)
    statement = select(Task).where(tasks.visible_tasks(call.actor))
    for column in (
        Task.init_org_id,
        Task.init_user_id,
        Task.study_id,
        Task.parent_id,
        Task.job_id,
        Task.store_id,
        Task.status,
    ):
        value = getattr(query, column.key)
        if value is not None:
            statement = statement.where(column == value)
    if query.collaboration_id is not None:
        statement = statement.where(Task.collaboration_id == query.collaboration_id)
    if query.run_id is not None:
        statement = statement.where(Task.id.in_(select(Run.task_id).where(Run.id == query.run_id)))
    if query.database is not None:
        statement = statement.join(task_database).where(task_database.c.label == query.database)
    # The same; but SQLite sees only of the one that has the label's index that it is in order.
    by = Task.id if query.database is None else task_database.c.task_id
    if query.is_user_created is not None:
        top = Task.parent_id.is_(None)
        statement = statement.where(top if query.is_user_created else ~top)
    statement = statement.options(*_loaded(query.include))

    def shown(call: Call, rows: Sequence[Task]) -> list[dict[str, Any]]:
        return show_all(call, rows, query.include)

    patterns = [(text, getattr(query, text.key)) for text in (Task.name, Task.image, Task.description)]
    matches = [like(text, pattern) for text, pattern in patterns if pattern is not None]
    beginnings = [found for text, pattern in patterns if (found := beginning(call, text, pattern)) is not None]
    narrow = statement.where(*matches, *itertools.chain(*beginnings)) if beginnings else None
    statement = statement.where(*(common(call, match) for match in matches))
    return paged(call, statement, query, shown, sorts={**SORTS, "id": by}, default=by.desc(), narrow=narrow)


def _check_references(call: Call, query: TaskQuery) -> None:
    """Raises InvalidRequest for what there is not, PermissionDenied for a collaboration or study of others."""
    for name, (model, what) in _REFERENCES.items():
        id_ = getattr(query, name)
        if id_ is not None and call.session.get(model, id_) is None:
            sentence = f"There is no {what} with id {id_}."
            raise InvalidRequest(f"Query is incorrect: {name}: {sentence}", {name: [sentence]})
    if query.collaboration_id is not None:
        collaborations.find_collaboration(call.session, call.actor, query.collaboration_id)
    if query.study_id is not None:
        collaborations.find_study(call.session, call.actor, query.study_id)


@declaring(Kind.USER, Kind.RUN, body=NewTask, answer=answers.Task)
def create() -> Response:
    """A store is asked for the image's digest before the transaction begins."""
    kind, claims = present(Kind.USER, Kind.RUN)
    body, server = parse_body(NewTask, tasks.LARGEST_REQUEST), current_server()
    spec = body.spec()
    said = [spec.uuid, spec.store_id, spec.fingerprint()]
    if body.store_id is not None and kind is Kind.USER:
        with server.database.reading() as session:
            actor = open_actor(session, kind, claims)
            url = stores.find_store(session, actor, body.store_id).url
            introduction = introduce(session, actor, body.server_url)
        address = webcalls.check(url, server.settings.stores.allowed)
        spec = replace(spec, image=webcalls.image_in_store(address, body.image, introduction))
    most = server.settings.limits.tasks_per_job

    def transaction() -> object:
        with server.database.writing() as session:
            call = Call(server, session, server.clock(), open_actor(session, kind, claims))
            return once(call, said, lambda: _create(call, spec, most))

    return respond(server.database.repeating(transaction))


def _create(call: Call, spec: tasks.TaskSpec, most: int) -> Reply:
    return Reply(
        show(call, tasks.create_task(call.session, call.actor, spec, call.server.payloads, call.now, most=most)), 201
    )


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=Include, answer=answers.Task)
def get(call: Call, id_: int, query: Include) -> dict[str, Any]:
    task = tasks.find_task(call.session, call.actor, id_, loaded=_loaded(query.include))
    return show_all(call, [task], query.include)[0]


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.TaskStatus)
def get_status(call: Call, id_: int) -> dict[str, Any]:
    return {"status": tasks.find_task(call.session, call.actor, id_).status}


@calls(Kind.USER, answer=answers.Message)
def delete(call: Call, id_: int) -> dict[str, Any]:
    call.forget(tasks.delete_task(call.session, call.actor, id_, call.now))
    return {"msg": f"Task id={id_} and its runs successfully deleted"}


@calls(Kind.USER, body=Kill, answer=answers.Message)
def kill(call: Call, body: Kill) -> dict[str, Any]:
    tasks.kill_task(call.session, call.actor, body.id, call.now)
    return {"msg": f"Nodes have been instructed to kill task {body.id}."}


@calls(Kind.USER, body=Columns, limit=tasks.LARGEST_REQUEST, answer=answers.Columns | answers.Task)
def ask_columns(call: Call, body: Columns) -> Reply:
    """From what the nodes tell of themselves; where they do not, or for a query, a task asks them."""
    tasks.check_may_create(call.actor, body.collaboration_id)
    if body.query is None and body.sheet_name is None:
        organizations = [one.id for one in body.organizations]
        found = sharing.columns(call.session, body.collaboration_id, organizations, body.db_label, call.now)
        if found:
            return Reply({"columns": found})
    task = tasks.create_task(call.session, call.actor, body.spec(), call.server.payloads, call.now)
    return Reply(show(call, task), 201)


def register(door: Blueprint) -> None:
    door.get("/task", endpoint="tasks")(list_tasks)
    door.post("/task", endpoint="task_create")(create)
    door.get("/task/<id:id_>", endpoint="task")(get)
    door.get("/task/<id:id_>/status", endpoint="task_status")(get_status)
    door.delete("/task/<id:id_>", endpoint="task_delete")(delete)
    door.post("/column", endpoint="columns")(ask_columns)
    door.post("/kill/task", endpoint="task_kill")(kill)


def show_all(call: Call, rows: Sequence[Task], include: Sequence[str]) -> list[dict[str, Any]]:
    """Tasks, with their runs and results in place of the links to them where asked for."""
    shown = [show(call, task) for task in rows]
    readable = runs.readable(call, rows) if "results" in include else set()
    carried = iter(runs.show_all(call, [run for task in rows for run in task.runs]) if "runs" in include else ())
    for task, out in zip(rows, shown, strict=True):
        if "runs" in include:
            out["runs"] = list(itertools.islice(carried, len(task.runs)))
        if "results" in include:
            out["results"] = runs.show_results(call, [run for run in task.runs if run.id in readable])
    return shown


def _loaded(include: Sequence[str]) -> Sequence[ORMOption]:
    """What showing tasks takes, whatever the number of their runs."""
    if not {"runs", "results"} & set(include):
        return ()
    return (selectinload(Task.runs).options(*runs.LOADED, joinedload(Run.result)),)
