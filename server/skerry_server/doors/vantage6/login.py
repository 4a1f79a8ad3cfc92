"""Tokens (contract, section 2.2)."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, Response
from pydantic import Field

from skerry_server import tokens
from skerry_server.doors.fields import Body, Text
from skerry_server.doors.handling import (
    Call,
    Reply,
    calls,
    current_server,
    declaring,
    open_actor,
    parse_body,
    present,
    proving,
    respond,
)
from skerry_server.doors.vantage6 import answers
from skerry_server.errors import LoginFailed, NotOffered
from skerry_server.models import Node, User
from skerry_server.policy import Kind
from skerry_server.services import login


class UserLogin(Body):
    username: Annotated[Text, Field(min_length=1, max_length=128)]
    password: Annotated[Text, Field(min_length=1, max_length=128)]
    mfa_code: Annotated[str, Field(max_length=10)] | None = None


class NodeLogin(Body):
    api_key: Annotated[UUID, Field(strict=False)]


@proving
@declaring(body=UserLogin, answer=answers.UserTokens | answers.Enrolment | answers.Message)
def log_in_user() -> Response:
    """The password is checked between two transactions, since it takes a while on purpose."""
    body, server = parse_body(UserLogin), current_server()
    with server.database.reading() as session:
        found = login.credentials(session, server.clock(), username=body.username)
    right, two_factors = login.check(found, body.password), server.settings.two_factor_auth
    with server.database.writing() as session:
        outcome = login.log_in(
            session, found, right=right, code=body.mfa_code, two_factors=two_factors, now=server.clock()
        )
        answer = _answer(Call(server, session, server.clock()), outcome)
    if isinstance(answer, LoginFailed):
        raise answer
    return respond(answer)


def _answer(call: Call, outcome: User | login.Enrolment | login.Missing) -> Reply | LoginFailed:
    if isinstance(outcome, User):
        return _user_tokens(call, outcome)
    if isinstance(outcome, login.Enrolment):
        return Reply(show_enrolment(outcome))
    return _LACKING[outcome]


_LACKING: dict[login.Missing, Reply | LoginFailed] = {
    login.Missing.PASSWORD: login.refused(),
    login.Missing.CODE: Reply({"msg": "Please include your two-factor authentication code"}),
    login.Missing.RIGHT_CODE: LoginFailed("Your two-factor authentication code is incorrect!"),
}


@proving
@calls(body=NodeLogin, answer=answers.NodeTokens)
def log_in_node(call: Call, body: NodeLogin) -> Reply:
    return _node_tokens(call, login.log_in_node(call.session, str(body.api_key)))


@declaring(Kind.USER, Kind.NODE, answer=answers.UserTokens | answers.NodeTokens)
def refresh() -> Response:
    kind, claims = tokens.presented(refresh=True)
    server = current_server()
    with server.database.writing() as session:
        call, actor = Call(server, session, server.clock()), open_actor(session, kind, claims)
        login.note_refresh(session, actor)
        if actor.kind is Kind.USER:
            return respond(_user_tokens(call, login.user_by_id(session, actor.id)))
        return respond(_node_tokens(call, session.get_one(Node, actor.id)))


@declaring(Kind.USER, answer=answers.ValidUser)
def validate_user() -> Response:
    """What an algorithm store asks, with the token that it was given: all that a store's token is good for."""
    kind, claims = present(Kind.USER, store=True)
    with current_server().database.reading() as session:
        user = login.user_by_id(session, open_actor(session, kind, claims).id)
        answer = {
            "msg": "Token is valid.",
            "user_id": user.id,
            "username": user.username,
            "email": user.email,
            "organization_id": user.organization_id,
        }
    return respond(answer)


@calls(Kind.NODE, answer=answers.ValidNode)
def validate_node(call: Call) -> dict[str, Any]:
    node = call.session.get_one(Node, call.actor.id)
    return {
        "msg": "Token is valid.",
        "node_id": node.id,
        "name": node.name,
        "organization_id": node.organization_id,
    }


@calls(Kind.NODE, answer=answers.Nothing)
def make_container_token(call: Call) -> None:  # noqa: ARG001 - every handler has a call
    """vantage6's own node is not a target: a run's token comes with the run."""
    raise NotOffered("This server hands a run's token to the node with the run; containers get none from here.")


def register(door: Blueprint) -> None:
    door.post("/token/user")(log_in_user)
    door.post("/token/node")(log_in_node)
    door.post("/token/refresh")(refresh)
    door.post("/token/user/validate")(validate_user)
    door.post("/token/node/validate")(validate_node)
    door.post("/token/container")(make_container_token)


def show_enrolment(enrolment: login.Enrolment) -> dict[str, Any]:
    return {
        "qr_uri": enrolment.address,
        "otp_secret": enrolment.secret,
        "msg": "Add this secret to your authenticator application, then log in with a code of it.",
    }


def _user_tokens(call: Call, user: User) -> Reply:
    pair = tokens.for_user(user)
    urls = {"refresh_url": call.link("token/refresh"), "user_url": call.link(f"user/{user.id}")}
    return Reply({**pair, **urls}, 200, {"jwt-token": pair["access_token"]})


def _node_tokens(call: Call, node: Node) -> Reply:
    pair = tokens.for_node(node)
    urls = {"refresh_url": call.link("token/refresh"), "node_url": call.link(f"node/{node.id}")}
    return Reply({**pair, **urls}, 200, {"jwt-token": pair["access_token"]})
