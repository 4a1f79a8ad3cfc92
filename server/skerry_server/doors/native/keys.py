"""Who this server is, and the organizations' keys."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry.wire import b64
from skerry_server.doors.fields import Body, Id, Query, Short, Text
from skerry_server.doors.handling import Call, calls
from skerry_server.models import Node, Organization
from skerry_server.policy import Kind
from skerry_server.server import own_version
from skerry_server.services import organizations, sharing

Moment = Annotated[int, Field(ge=0, lt=2**53)]


class KeysQuery(Query):
    collaboration_id: Id


class KeysBody(Body):
    organization_id: Id
    public_key: str
    signing_key: str = ""
    binding: str = ""


class Setting(Body):
    key: Annotated[Short, Field(min_length=1)]
    value: Annotated[Text, Field(max_length=1024)]


class Settings(Body):
    """What a node shares of its configuration."""

    data: Annotated[list[Setting], Field(max_length=2000)]


class SuccessionBody(KeysBody):
    previous: str
    created: Moment
    until: Moment
    signature: str


class Revoked(Body):
    user: Id
    before: Moment


class RevocationBody(Body):
    organization_id: Id
    created: Moment
    revoked: Annotated[list[Revoked], Field(max_length=10_000)]
    signature: str


@calls()
def info(call: Call) -> dict[str, Any]:
    return {
        "name": "skerry",
        "version": own_version(),
        "server_id": call.server.id,
        "time": call.now.isoformat(),
    }


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=KeysQuery)
def list_keys(call: Call, query: KeysQuery) -> dict[str, Any]:
    found = organizations.keys_of(call.session, call.actor, query.collaboration_id)
    return {"data": [_shown(organization) for organization in found]}


@calls(Kind.USER, Kind.NODE, body=KeysBody)
def register_keys(call: Call, id_: int, body: KeysBody) -> dict[str, Any]:
    return _shown(organizations.register_keys(call.session, call.actor, id_, body.model_dump()))


@calls(Kind.USER)
def clear_keys(call: Call, id_: int) -> dict[str, Any]:
    return _shown(organizations.clear_keys(call.session, call.actor, id_))


@calls(Kind.USER, Kind.NODE)
def get_keys(call: Call, id_: int) -> dict[str, Any]:
    return _shown(organizations.find_organization(call.session, call.actor, id_))


@calls(Kind.USER, body=SuccessionBody)
def succeed_keys(call: Call, id_: int, body: SuccessionBody) -> dict[str, Any]:
    return _shown(organizations.succeed_keys(call.session, call.actor, id_, body.model_dump()))


@calls(Kind.USER, body=RevocationBody)
def revoke_certificates(call: Call, id_: int, body: RevocationBody) -> dict[str, Any]:
    return _shown(organizations.revoke_certificates(call.session, call.actor, id_, body.model_dump()))


@calls(Kind.NODE)
def node_self(call: Call) -> dict[str, Any]:
    node = call.session.get_one(Node, call.actor.id)
    collaboration = node.collaboration
    return {
        "id": node.id,
        "name": node.name,
        "organization": {"id": node.organization_id, "name": node.organization.name},
        "collaboration": {
            "id": collaboration.id,
            "name": collaboration.name,
            "encrypted": collaboration.encrypted,
            "accept": collaboration.accept,
        },
    }


@calls(Kind.NODE, body=Settings, limit=4 << 20)
def share_settings(call: Call, body: Settings) -> dict[str, Any]:
    sharing.share(call.session, call.actor, [(one.key, one.value) for one in body.data])
    return body.model_dump()


def register(door: Blueprint) -> None:
    door.get("/info")(info)
    door.get("/keys")(list_keys)
    door.put("/organization/<id:id_>/keys")(register_keys)
    door.get("/organization/<id:id_>/keys")(get_keys)
    door.delete("/organization/<id:id_>/keys")(clear_keys)
    door.post("/organization/<id:id_>/successor")(succeed_keys)
    door.put("/organization/<id:id_>/revocation")(revoke_certificates)
    door.get("/node/self")(node_self)
    door.put("/node/self/config")(share_settings)


def _shown(organization: Organization) -> dict[str, Any]:
    return {
        "organization_id": organization.id,
        "public_key": b64(organization.public_key or b""),
        "signing_key": b64(organization.signing_key or b""),
        "binding": b64(organization.binding or b""),
        "successions": [succession.statement for succession in organization.successions],
        "revocation": organization.revocation,
    }
