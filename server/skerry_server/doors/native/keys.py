"""Who this server is, and the organizations' keys."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry.wire import b64
from skerry_server.doors.fields import Body, Id, Query, Short, Text
from skerry_server.doors.handling import Call, calls
from skerry_server.models import Node, Organization
from skerry_server.policy import Kind
from skerry_server.services import organizations, sharing


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


@calls()
def info(call: Call) -> dict[str, Any]:
    return {
        "name": "skerry",
        "version": version("skerry"),
        "server_id": hashlib.sha256(b"skerry server id\0" + call.server.secret.encode()).hexdigest()[:32],
        "time": call.now.isoformat(),
    }


@calls(Kind.USER, Kind.NODE, Kind.RUN, query=KeysQuery)
def list_keys(call: Call, query: KeysQuery) -> dict[str, Any]:
    found = organizations.keys_of(call.session, call.actor, query.collaboration_id)
    return {"data": [_shown(organization) for organization in found]}


@calls(Kind.USER, Kind.NODE, body=KeysBody)
def register_keys(call: Call, id_: int, body: KeysBody) -> dict[str, Any]:
    return _shown(organizations.register_keys(call.session, call.actor, id_, body.model_dump()))


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
    door.get("/node/self")(node_self)
    door.put("/node/self/config")(share_settings)


def _shown(organization: Organization) -> dict[str, Any]:
    return {
        "organization_id": organization.id,
        "public_key": b64(organization.public_key or b""),
        "signing_key": b64(organization.signing_key or b""),
        "binding": b64(organization.binding or b""),
    }
