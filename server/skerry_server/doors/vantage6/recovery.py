"""Lost and changed passwords, lost second factors (contract, section 2.3).

Who asks for a letter is told the same in the same time, whether there is such a user or not: the user is looked up
in the background.
"""

from __future__ import annotations

from typing import Annotated, Any

import jwt
from flask import Blueprint, Response
from pydantic import Field, model_validator

from skerry_server import tokens
from skerry_server.doors.fields import Body, Text
from skerry_server.doors.handling import (
    Call,
    calls,
    current_server,
    declaring,
    open_actor,
    parse_body,
    present,
    proving,
    respond,
)
from skerry_server.doors.vantage6.login import show_enrolment
from skerry_server.errors import InvalidRequest, LetterTokenRefused
from skerry_server.mail import Letter
from skerry_server.policy import Kind
from skerry_server.server import Server
from skerry_server.services import login, recovery
from skerry_server.tokens import Purpose

Word = Annotated[Text, Field(min_length=1, max_length=128)]
_LOST = {"msg": "If the username or email is in our database you will soon receive an email."}
_SUBJECTS = {
    Purpose.PASSWORD: "A new password for skerry",
    Purpose.SECOND_FACTOR: "A new second factor for skerry",
}


class Whom(Body):
    username: Word | None = None
    email: Word | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Whom:
        if self.username is None and self.email is None:
            raise ValueError('Either "username" or "email" is needed.')
        return self


class WhomWithPassword(Whom):
    password: Word


class TokenBody(Body):
    reset_token: Annotated[Text, Field(max_length=4096)]


class NewPassword(TokenBody):
    password: Word


class PasswordChange(Body):
    current_password: Word
    new_password: Word


@declaring(body=Whom)
def lost_password() -> Response:
    body = parse_body(Whom)
    _write_later(current_server(), body, Purpose.PASSWORD)
    return respond(_LOST)


@proving
@calls(body=NewPassword)
def reset_password(call: Call, body: NewPassword) -> dict[str, Any]:
    recovery.reset_password(call.session, *_holder(call, body, Purpose.PASSWORD), body.password)
    return {"msg": "The password has successfully been reset!"}


@proving
@declaring(body=WhomWithPassword)
def lost_second_factor() -> Response:
    body, server = parse_body(WhomWithPassword), current_server()
    with server.database.reading() as session:
        found = login.credentials(session, server.clock(), username=body.username, email=body.email)
    right = login.check(found, body.password)
    with server.database.writing() as session:
        proved = login.prove_password(session, found, right=right, now=server.clock()) is not None
    if not proved:
        raise login.refused()
    if not server.mailer.configured:
        raise InvalidRequest("This server sends no mail: ask an administrator to configure it.")
    _write_later(server, body, Purpose.SECOND_FACTOR)
    return respond({"msg": "You should have received an email with a token to set a new second factor."})


@proving
@calls(body=TokenBody)
def reset_second_factor(call: Call, body: TokenBody) -> dict[str, Any]:
    holder = _holder(call, body, Purpose.SECOND_FACTOR)
    return show_enrolment(recovery.reset_second_factor(call.session, *holder))


@proving
@declaring(Kind.USER, body=PasswordChange)
def change_password() -> Response:
    """The password is checked between two transactions; a wrong one counts as a failed log-in."""
    kind, claims = present(Kind.USER)
    body, server = parse_body(PasswordChange), current_server()
    with server.database.reading() as session:
        actor = open_actor(session, kind, claims)
        found = login.credentials(session, server.clock(), id_=actor.id)
    right = login.check(found, body.current_password)
    with server.database.writing() as session:
        changed = login.change_password(session, found, body.new_password, right=right, now=server.clock())
    if not changed:
        raise login.refused()
    return respond({"msg": "The password has been changed: log in with the new one."})


def register(door: Blueprint) -> None:
    door.post("/recover/lost")(lost_password)
    door.post("/recover/reset")(reset_password)
    door.post("/recover/2fa/lost")(lost_second_factor)
    door.post("/recover/2fa/reset")(reset_second_factor)
    door.patch("/password/change")(change_password)


def _holder(call: Call, body: TokenBody, purpose: Purpose) -> tuple[int, int]:
    try:
        return tokens.read_reset(body.reset_token, purpose, call.now)
    except (jwt.InvalidTokenError, ValueError, TypeError) as error:
        raise LetterTokenRefused from error


def _write_later(server: Server, whom: Whom, purpose: Purpose) -> None:
    if server.mailer.configured:
        server.mailer.later(lambda: _letter(server, whom, purpose))


def _letter(server: Server, whom: Whom, purpose: Purpose) -> Letter | None:
    now = server.clock()
    with server.database.writing() as session:
        user = login.find_user(session, username=whom.username, email=whom.email)
        if user is None or not recovery.may_be_written_to(user, now):
            return None
        token = tokens.for_reset(server.secret, user, purpose, now)
        to = user.email
    return Letter(
        to,
        _SUBJECTS[purpose],
        f"Somebody, hopefully you, asked for this. The token, valid for an hour and for one use:\n\n{token}\n",
    )
