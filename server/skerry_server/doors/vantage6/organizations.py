"""Organizations (contract, section 2.5)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from sqlalchemy import select

from skerry.wire import b64
from skerry_server.doors.fields import Body, Dependents, Id, Name, Short, Text
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers
from skerry_server.doors.vantage6.paging import Listing, each, like, named, paged
from skerry_server.doors.vantage6.shapes import many
from skerry_server.models import Organization, member, study_member
from skerry_server.policy import Kind
from skerry_server.services import collaborations, organizations

SORTS = named(
    Organization.id,
    Organization.name,
    Organization.country,
    Organization.domain,
    Organization.address1,
    Organization.address2,
    Organization.zipcode,
)


class OrganizationQuery(Listing):
    name: str | None = None
    country: str | None = None
    collaboration_id: Id | None = None
    study_id: Id | None = None
    ids: list[Id] | None = None


class OrganizationChange(Body):
    name: Name | None = None
    address1: Short | None = None
    address2: Short | None = None
    zipcode: Short | None = None
    country: Short | None = None
    domain: Short | None = None
    public_key: Text | None = None

    def fields(self) -> dict[str, Any]:
        """The columns; the key as PEM bytes. Raises InvalidRequest for a key that is none."""
        given = self.model_dump(exclude_none=True)
        if self.public_key is not None:
            given["public_key"] = organizations.decode_public_key(self.public_key)
        return given


class NewOrganization(OrganizationChange):
    name: Name


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=OrganizationQuery, answer=answers.Page[answers.Organization])
def list_organizations(call: Call, query: OrganizationQuery) -> Reply:
    statement = select(Organization).where(organizations.visible_organizations(call.actor))
    if query.name is not None:
        statement = statement.where(like(Organization.name, query.name))
    if query.country is not None:
        statement = statement.where(Organization.country == query.country)
    if query.ids is not None:
        statement = statement.where(Organization.id.in_(query.ids))
    if query.collaboration_id is not None:
        collaborations.find_collaboration(call.session, call.actor, query.collaboration_id)
        here = member.c.collaboration_id == query.collaboration_id
        statement = statement.where(Organization.id.in_(select(member.c.organization_id).where(here)))
    if query.study_id is not None:
        collaborations.find_study(call.session, call.actor, query.study_id)
        here = study_member.c.study_id == query.study_id
        statement = statement.where(Organization.id.in_(select(study_member.c.organization_id).where(here)))
    return paged(call, statement, query, each(show), sorts=SORTS, default=Organization.id.asc())


@calls(Kind.USER, body=NewOrganization, answer=answers.Organization)
def create(call: Call, body: NewOrganization) -> Reply:
    return Reply(show(call, organizations.create_organization(call.session, call.actor, body.fields())), 201)


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.Organization)
def get(call: Call, id_: int) -> dict[str, Any]:
    return show(call, organizations.find_organization(call.session, call.actor, id_))


@calls(Kind.USER, Kind.NODE, body=OrganizationChange, answer=answers.Organization)
def change(call: Call, id_: int, body: OrganizationChange) -> dict[str, Any]:
    return show(call, organizations.change_organization(call.session, call.actor, id_, body.fields()))


@calls(Kind.USER, query=Dependents, answer=answers.Message)
def delete(call: Call, id_: int, query: Dependents) -> dict[str, Any]:
    payloads = organizations.delete_organization(
        call.session, call.actor, id_, dependents=query.delete_dependents, now=call.now
    )
    call.forget(payloads)
    return {"msg": f"Organization id={id_} successfully deleted"}


def register(door: Blueprint) -> None:
    door.get("/organization", endpoint="organizations")(list_organizations)
    door.post("/organization", endpoint="organization_create")(create)
    door.get("/organization/<id:id_>", endpoint="organization")(get)
    door.patch("/organization/<id:id_>", endpoint="organization_change")(change)
    door.delete("/organization/<id:id_>", endpoint="organization_delete")(delete)


def show(call: Call, organization: Organization) -> dict[str, Any]:
    id_ = organization.id
    return {
        "id": id_,
        "name": organization.name,
        "domain": organization.domain,
        "address1": organization.address1,
        "address2": organization.address2,
        "zipcode": organization.zipcode,
        "country": organization.country,
        "public_key": b64(organization.public_key or b""),
        "collaborations": many(call, "collaboration", organization_id=id_),
        "nodes": many(call, "node", organization_id=id_),
        "users": many(call, "user", organization_id=id_),
        "tasks": many(call, "task", init_org_id=id_),
        "runs": many(call, "run", organization_id=id_),
        "studies": many(call, "study", organization_id=id_),
    }
