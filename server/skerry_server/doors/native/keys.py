"""Who this server is, and the organizations' keys."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

from flask import Blueprint

from skerry.wire import b64
from skerry_server.doors.fields import Body, Id, Query
from skerry_server.doors.handling import Call, calls
from skerry_server.models import Node, Organization
from skerry_server.policy import Kind
from skerry_server.services import organizations


class KeysQuery(Query):
    collaboration_id: Id


class KeysBody(Body):
    organization_id: Id
    public_key: str
    signing_key: str = ""
    binding: str = ""


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


def register(door: Blueprint) -> None:
    door.get("/info")(info)
    door.get("/keys")(list_keys)
    door.put("/organization/<id:id_>/keys")(register_keys)
    door.get("/node/self")(node_self)


def _shown(organization: Organization) -> dict[str, Any]:
    return {
        "organization_id": organization.id,
        "public_key": b64(organization.public_key or b""),
        "signing_key": b64(organization.signing_key or b""),
        "binding": b64(organization.binding or b""),
    }
