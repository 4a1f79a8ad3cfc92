"""How a node gets into its collaboration, and a new key later."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry_server.doors.fields import Body, Id, Text
from skerry_server.doors.handling import Call, Reply, calls, proving
from skerry_server.policy import Kind
from skerry_server.services import invitations, nodes


class InvitationBody(Body):
    collaboration_id: Id
    organization_id: Id | None = None
    hours: Annotated[int, Field(ge=1, le=7 * 24)] = 24


class JoinBody(Body):
    secret: Annotated[Text, Field(min_length=1, max_length=128)]


class Empty(Body):
    """Nothing."""


@calls(Kind.USER, body=InvitationBody)
def invite(call: Call, body: InvitationBody) -> Reply:
    life = timedelta(hours=body.hours)
    made = invitations.invite(call.session, call.actor, body.collaboration_id, body.organization_id, life, call.now)
    answer = {
        "server_id": call.server.id,
        "node_id": made.node.id,
        "secret": made.secret,
        "expires": f"{made.expires.isoformat(timespec='seconds')}Z",
    }
    return Reply(answer, 201)


@proving
@calls(body=JoinBody)
def join(call: Call, body: JoinBody) -> dict[str, Any]:
    node, key = invitations.redeem(call.session, body.secret, call.now)
    organization, collaboration = node.organization, node.collaboration
    return {
        "api_key": key,
        "name": node.name,
        "organization": {"id": organization.id, "name": organization.name, "keys": organization.public_key is not None},
        "collaboration": {"id": collaboration.id, "name": collaboration.name, "encrypted": collaboration.encrypted},
    }


@calls(Kind.NODE, body=Empty)
def rotate_key(call: Call, body: Empty) -> dict[str, Any]:  # noqa: ARG001 - it must be a JSON object
    return {"api_key": nodes.rotate_api_key(call.session, call.actor)}


def register(door: Blueprint) -> None:
    door.post("/invitation")(invite)
    door.post("/join")(join)
    door.post("/node/key")(rotate_key)
