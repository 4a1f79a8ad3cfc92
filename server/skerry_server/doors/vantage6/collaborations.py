"""Collaborations (contract, section 2.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from flask import Blueprint
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from skerry_server.doors.fields import Body, Dependents, Flag, Id, Member, Name, Query, Words
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers, organizations
from skerry_server.doors.vantage6 import nodes as node_door
from skerry_server.doors.vantage6.paging import Listing, like, named, paged
from skerry_server.doors.vantage6.shapes import many
from skerry_server.models import Collaboration, member, store_member
from skerry_server.policy import Kind
from skerry_server.services import collaborations, nodes

SORTS = named(Collaboration.id, Collaboration.name, Collaboration.encrypted)


class CollaborationQuery(Listing):
    name: str | None = None
    encrypted: Flag | None = None
    organization_id: Id | None = None
    algorithm_store_id: Id | None = None
    include: Words = Field(default_factory=list)


class Include(Query):
    include: Words = Field(default_factory=list)


class CollaborationChange(Body):
    name: Name | None = None
    encrypted: bool | None = None
    organization_ids: Annotated[list[Id], Field(max_length=10_000)] | None = None
    accept: Literal["native", "vantage6", "both"] | None = None

    def fields(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, exclude={"organization_ids"})


class NewCollaboration(CollaborationChange):
    name: Name
    encrypted: bool
    organization_ids: Annotated[list[Id], Field(max_length=10_000)]
    accept: Literal["native", "vantage6", "both"] = "native"


@calls(Kind.USER, Kind.NODE, query=CollaborationQuery, answer=answers.Page[answers.Collaboration])
def list_collaborations(call: Call, query: CollaborationQuery) -> Reply:
    statement = select(Collaboration).where(collaborations.visible_collaborations(call.actor))
    if query.name is not None:
        statement = statement.where(like(Collaboration.name, query.name))
    if query.encrypted is not None:
        statement = statement.where(Collaboration.encrypted == query.encrypted)
    if query.organization_id is not None:
        mine = select(member.c.collaboration_id).where(member.c.organization_id == query.organization_id)
        statement = statement.where(Collaboration.id.in_(mine))
    if query.algorithm_store_id is not None:
        linked = select(store_member.c.collaboration_id).where(
            store_member.c.algorithm_store_id == query.algorithm_store_id
        )
        statement = statement.where(Collaboration.id.in_(linked))
    nested = "organizations" in query.include
    if nested:
        statement = statement.options(selectinload(Collaboration.organizations))

    def shown(call: Call, rows: Sequence[Collaboration]) -> list[dict[str, Any]]:
        return [show(call, row, nested=nested) for row in rows]

    return paged(call, statement, query, shown, sorts=SORTS, default=Collaboration.id.asc())


@calls(Kind.USER, body=NewCollaboration, answer=answers.Collaboration)
def create(call: Call, body: NewCollaboration) -> dict[str, Any]:
    made = collaborations.create_collaboration(call.session, call.actor, body.fields(), body.organization_ids)
    return show(call, made)


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=Include, answer=answers.Collaboration)
def get(call: Call, id_: int, query: Include) -> dict[str, Any]:
    found = collaborations.find_collaboration(call.session, call.actor, id_)
    return show(call, found, nested="organizations" in query.include)


@calls(Kind.USER, body=CollaborationChange, answer=answers.Collaboration)
def change(call: Call, id_: int, body: CollaborationChange) -> dict[str, Any]:
    changed = collaborations.change_collaboration(
        call.session, call.actor, id_, body.fields(), body.organization_ids, call.now
    )
    return show(call, changed)


@calls(Kind.USER, query=Dependents, answer=answers.Message)
def delete(call: Call, id_: int, query: Dependents) -> dict[str, Any]:
    payloads = collaborations.delete_collaboration(
        call.session, call.actor, id_, dependents=query.delete_dependents, now=call.now
    )
    call.forget(payloads)
    return {"msg": f"Collaboration id={id_} successfully deleted"}


@calls(Kind.USER, body=Member, answer=list[answers.Organization])
def add_member(call: Call, id_: int, body: Member) -> list[dict[str, Any]]:
    collaboration = collaborations.add_member(call.session, call.actor, id_, body.id)
    return [organizations.show(call, organization) for organization in collaboration.organizations]


@calls(Kind.USER, body=Member, answer=list[answers.Organization])
def remove_member(call: Call, id_: int, body: Member) -> list[dict[str, Any]]:
    collaboration = collaborations.remove_member(call.session, call.actor, id_, body.id, call.now)
    return [organizations.show(call, organization) for organization in collaboration.organizations]


@calls(Kind.USER, body=Member, answer=list[answers.Node])
def add_node(call: Call, id_: int, body: Member) -> Reply:
    moved = nodes.move_node(call.session, call.actor, body.id, id_)
    return Reply([node_door.show(call, node) for node in nodes.nodes_of(call.session, moved.collaboration_id)], 201)


@calls(Kind.USER, body=Member, answer=list[answers.Node])
def remove_node(call: Call, id_: int, body: Member) -> list[dict[str, Any]]:
    nodes.remove_node(call.session, call.actor, body.id, id_, call.now)
    return [node_door.show(call, node) for node in nodes.nodes_of(call.session, id_)]


def register(door: Blueprint) -> None:
    door.get("/collaboration", endpoint="collaborations")(list_collaborations)
    door.post("/collaboration", endpoint="collaboration_create")(create)
    door.get("/collaboration/<id:id_>", endpoint="collaboration")(get)
    door.patch("/collaboration/<id:id_>", endpoint="collaboration_change")(change)
    door.delete("/collaboration/<id:id_>", endpoint="collaboration_delete")(delete)
    door.post("/collaboration/<id:id_>/organization", endpoint="collaboration_add")(add_member)
    door.delete("/collaboration/<id:id_>/organization", endpoint="collaboration_remove")(remove_member)
    door.post("/collaboration/<id:id_>/node", endpoint="collaboration_add_node")(add_node)
    door.delete("/collaboration/<id:id_>/node", endpoint="collaboration_remove_node")(remove_node)


def show(call: Call, collaboration: Collaboration, *, nested: bool = False) -> dict[str, Any]:
    id_ = collaboration.id
    members: Any = many(call, "organization", collaboration_id=id_)
    if nested:
        members = [organizations.show(call, organization) for organization in collaboration.organizations]
    return {
        "id": id_,
        "name": collaboration.name,
        "encrypted": collaboration.encrypted,
        "accept": collaboration.accept,
        "organizations": members,
        "nodes": many(call, "node", collaboration_id=id_),
        "tasks": many(call, "task", collaboration_id=id_),
        "algorithm_stores": many(call, "algorithmstore", collaboration_id=id_),
        "studies": many(call, "study", collaboration_id=id_),
    }
