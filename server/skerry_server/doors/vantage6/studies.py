"""Studies (contract, section 2.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from skerry_server.doors.fields import Body, Id, Member, Name, Query, Words
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers, organizations
from skerry_server.doors.vantage6.paging import Listing, like, named, paged
from skerry_server.doors.vantage6.shapes import many, one
from skerry_server.models import Study, study_member
from skerry_server.policy import Kind
from skerry_server.services import collaborations

SORTS = named(Study.id, Study.name, Study.collaboration_id)


class StudyQuery(Listing):
    name: str | None = None
    organization_id: Id | None = None
    collaboration_id: Id | None = None
    include: Words = Field(default_factory=list)


class Include(Query):
    include: Words = Field(default_factory=list)


class StudyChange(Body):
    name: Name | None = None
    organization_ids: Annotated[list[Id], Field(max_length=10_000)] | None = None


class NewStudy(Body):
    name: Name
    collaboration_id: Id
    organization_ids: Annotated[list[Id], Field(max_length=10_000)]


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=StudyQuery, answer=answers.Page[answers.Study])
def list_studies(call: Call, query: StudyQuery) -> Reply:
    statement = select(Study).where(collaborations.visible_studies(call.actor))
    if query.name is not None:
        statement = statement.where(like(Study.name, query.name))
    if query.collaboration_id is not None:
        statement = statement.where(Study.collaboration_id == query.collaboration_id)
    if query.organization_id is not None:
        mine = select(study_member.c.study_id).where(study_member.c.organization_id == query.organization_id)
        statement = statement.where(Study.id.in_(mine))
    nested = "organizations" in query.include
    if nested:
        statement = statement.options(selectinload(Study.organizations))

    def shown(call: Call, rows: Sequence[Study]) -> list[dict[str, Any]]:
        return [show(call, row, nested=nested) for row in rows]

    return paged(call, statement, query, shown, sorts=SORTS, default=Study.id.asc())


@calls(Kind.USER, body=NewStudy, answer=answers.Study)
def create(call: Call, body: NewStudy) -> Reply:
    study = collaborations.create_study(
        call.session, call.actor, body.name, body.collaboration_id, body.organization_ids
    )
    return Reply(show(call, study, nested=True), 201)


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=Include, answer=answers.Study)
def get(call: Call, id_: int, query: Include) -> dict[str, Any]:
    study = collaborations.find_study(call.session, call.actor, id_)
    return show(call, study, nested="organizations" in query.include)


@calls(Kind.USER, body=StudyChange, answer=answers.Study)
def change(call: Call, id_: int, body: StudyChange) -> dict[str, Any]:
    return show(call, collaborations.change_study(call.session, call.actor, id_, body.name, body.organization_ids))


@calls(Kind.USER, answer=answers.Message)
def delete(call: Call, id_: int) -> dict[str, Any]:
    collaborations.delete_study(call.session, call.actor, id_)
    return {"msg": f"Study id={id_} successfully deleted"}


@calls(Kind.USER, body=Member, answer=list[answers.Organization])
def add_member(call: Call, id_: int, body: Member) -> Reply:
    study = collaborations.add_to_study(call.session, call.actor, id_, body.id)
    return Reply([organizations.show(call, organization) for organization in study.organizations], 200)


@calls(Kind.USER, body=Member, answer=list[answers.Organization])
def remove_member(call: Call, id_: int, body: Member) -> list[dict[str, Any]]:
    study = collaborations.remove_from_study(call.session, call.actor, id_, body.id)
    return [organizations.show(call, organization) for organization in study.organizations]


def register(door: Blueprint) -> None:
    door.get("/study", endpoint="studies")(list_studies)
    door.post("/study", endpoint="study_create")(create)
    door.get("/study/<id:id_>", endpoint="study")(get)
    door.patch("/study/<id:id_>", endpoint="study_change")(change)
    door.delete("/study/<id:id_>", endpoint="study_delete")(delete)
    door.post("/study/<id:id_>/organization", endpoint="study_add")(add_member)
    door.delete("/study/<id:id_>/organization", endpoint="study_remove")(remove_member)


def show(call: Call, study: Study, *, nested: bool = False) -> dict[str, Any]:
    members: Any = many(call, "organization", study_id=study.id)
    if nested:
        members = [organizations.show(call, organization) for organization in study.organizations]
    return {
        "id": study.id,
        "name": study.name,
        "collaboration": one(call, "collaboration", study.collaboration_id),
        "organizations": members,
        "tasks": many(call, "task", study_id=study.id),
    }
