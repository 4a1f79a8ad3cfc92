"""How a node gets into its collaboration, and a new key later."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from skerry_server import bootstrap
from skerry_server.doors.fields import Body, Id, Name, Text, Username
from skerry_server.doors.handling import Call, Reply, calls, once, proving
from skerry_server.errors import LoginFailed
from skerry_server.policy import Kind
from skerry_server.services import invitations, nodes, users


class InvitationBody(Body):
    collaboration_id: Id
    organization_id: Id | None = None
    hours: Annotated[int, Field(ge=1, le=7 * 24)] = 24


class JoinBody(Body):
    secret: Annotated[Text, Field(min_length=1, max_length=128)]


class BootstrapBody(Body):
    secret: Annotated[Text, Field(min_length=1, max_length=128)]
    organization: Name
    username: Username
    password: Annotated[Text, Field(max_length=128)]


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
def join(call: Call, body: JoinBody) -> object:
    """The secret is good once; who lost the answer gets it again, by the key that the request came with."""
    return once(call, [body], functools.partial(_welcome, call, body.secret))


def _welcome(call: Call, secret: str) -> dict[str, Any]:
    node, key = invitations.redeem(call.session, secret, call.now)
    organization, collaboration = node.organization, node.collaboration
    return {
        "api_key": key,
        "name": node.name,
        "organization": {"id": organization.id, "name": organization.name, "keys": organization.public_key is not None},
        "collaboration": {"id": collaboration.id, "name": collaboration.name, "encrypted": collaboration.encrypted},
    }


@proving
@calls(body=BootstrapBody)
def found(call: Call, body: BootstrapBody) -> object:
    """The secret is good once; who lost the answer gets it again, by the key that the request came with."""
    return once(call, [body], functools.partial(_found, call, body))


def _found(call: Call, body: BootstrapBody) -> Reply:
    """The first user, by who has the secret that the server's first start wrote into its state folder."""
    state = call.server.settings.state
    if not bootstrap.is_good(state, body.secret):
        raise LoginFailed("This secret is not good, or no longer: there may be users already.")
    user = users.found_root(call.session, body.username, body.password, body.organization)
    call.after.append(functools.partial(bootstrap.withdraw, state))
    return Reply({"user_id": user.id, "username": user.username, "organization_id": user.organization_id}, 201)


@calls(Kind.NODE, body=Empty)
def rotate_key(call: Call, body: Empty) -> dict[str, Any]:  # noqa: ARG001 - it must be a JSON object
    return {"api_key": nodes.rotate_api_key(call.session, call.actor)}


def register(door: Blueprint) -> None:
    door.post("/invitation")(invite)
    door.post("/join")(join)
    door.post("/bootstrap")(found)
    door.post("/node/key")(rotate_key)
