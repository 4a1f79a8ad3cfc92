"""Tokens (contract, section 2.2)."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import UUID4, Field

from skerry_server import tokens
from skerry_server.doors.fields import Body, Text
from skerry_server.doors.handling import Call, Reply, calls, current_server, open_actor, parse_body, respond
from skerry_server.models import Node, User
from skerry_server.policy import Kind
from skerry_server.services import login


class UserLogin(Body):
    username: Annotated[Text, Field(min_length=1, max_length=128)]
    password: Annotated[Text, Field(min_length=1, max_length=128)]
    mfa_code: Annotated[str, Field(max_length=10)] | None = None


class NodeLogin(Body):
    api_key: Annotated[UUID4, Field(strict=False)]


def log_in_user() -> Response:
    """The password is checked between two transactions, since it takes a while on purpose."""
    body, server = parse_body(UserLogin), current_server()
    with server.database.reading() as session:
        found = login.credentials(session, body.username, server.clock())
    right = login.check(found, body.password)
    with server.database.writing() as session:
        user = login.log_in(session, found, right=right, now=server.clock())
        answer = _user_tokens(Call(server, session, server.clock()), user) if user is not None else None
    if answer is None:
        raise login.refused()
    return respond(answer)


@calls(body=NodeLogin)
def log_in_node(call: Call, body: NodeLogin) -> Reply:
    return _node_tokens(call, login.log_in_node(call.session, str(body.api_key)))


def refresh() -> Response:
    kind, claims = tokens.presented(refresh=True)
    server = current_server()
    with server.database.reading() as session:
        call, actor = Call(server, session, server.clock()), open_actor(session, kind, claims)
        if actor.kind is Kind.USER:
            return respond(_user_tokens(call, login.user_by_id(session, actor.id)))
        return respond(_node_tokens(call, session.get_one(Node, actor.id)))


@calls(Kind.USER)
def validate_user(call: Call) -> dict[str, Any]:
    user = login.user_by_id(call.session, call.actor.id)
    return {
        "msg": "Token is valid.",
        "user_id": user.id,
        "username": user.username,
        "email": user.email,
        "organization_id": user.organization_id,
    }


@calls(Kind.NODE)
def validate_node(call: Call) -> dict[str, Any]:
    node = call.session.get_one(Node, call.actor.id)
    return {
        "msg": "Token is valid.",
        "node_id": node.id,
        "name": node.name,
        "organization_id": node.organization_id,
    }


def register(door: Blueprint) -> None:
    door.post("/token/user")(log_in_user)
    door.post("/token/node")(log_in_node)
    door.post("/token/refresh")(refresh)
    door.post("/token/user/validate")(validate_user)
    door.post("/token/node/validate")(validate_node)


def _user_tokens(call: Call, user: User) -> Reply:
    pair = tokens.for_user(user)
    urls = {"refresh_url": call.link("token/refresh"), "user_url": call.link(f"user/{user.id}")}
    return Reply({**pair, **urls}, 200, {"jwt-token": pair["access_token"]})


def _node_tokens(call: Call, node: Node) -> Reply:
    pair = tokens.for_node(node)
    urls = {"refresh_url": call.link("token/refresh"), "node_url": call.link(f"node/{node.id}")}
    return Reply({**pair, **urls}, 200, {"jwt-token": pair["access_token"]})
