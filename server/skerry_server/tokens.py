"""Tokens: one kind for each purpose, and none is taken in place of another.

HS256, with the claims that vantage6's clients read (contract, section 3) and an audience for each kind. A token
carries the ``epoch`` of the password or API key behind it, and is dead when that changed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import jwt
from flask import Flask, Response, current_app, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, get_jwt, verify_jwt_in_request

from skerry_server.errors import LoginFailed
from skerry_server.models import Node, Run, User
from skerry_server.policy import Kind
from skerry_server.settings import Tokens

_REFRESH = "refresh"
# Audiences: refresh tokens have theirs, and so has what an algorithm store hears of a user.
_STORE = "skerry:store"
_AUDIENCES = [*(f"skerry:{kind}{suffix}" for kind in Kind for suffix in ("", f":{_REFRESH}")), _STORE]
_KNOWN, _MOST_KNOWN = "skerry_tokens", 4096
"""By the header that they came in: to check a signature anew takes as long as to read the caller's rules."""
_STORE_LIFETIME = timedelta(minutes=5)


def install(app: Flask, settings: Tokens, secret: str) -> JWTManager:
    """Sets the token library up: which header, which algorithm, which audiences there are at all."""
    app.config.update(
        JWT_SECRET_KEY=secret,
        JWT_ALGORITHM="HS256",
        JWT_TOKEN_LOCATION=["headers"],
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(minutes=settings.access_minutes),
        JWT_REFRESH_TOKEN_EXPIRES=timedelta(minutes=settings.refresh_minutes),
        JWT_DECODE_AUDIENCE=_AUDIENCES,
        JWT_VERIFY_SUB=False,  # vantage6's clients build URLs from an integer
        JWT_ERROR_MESSAGE_KEY="msg",
    )
    app.extensions[_KNOWN] = {}
    app.register_error_handler(jwt.ImmatureSignatureError, _from_another_time)
    return JWTManager(app)


def _from_another_time(_error: jwt.ImmatureSignatureError) -> tuple[Response, int]:
    """The clock was set back since this token was given. Its holder gets a new one, as for one that expired."""
    return jsonify(msg="Token has expired"), 401


def for_user(user: User) -> dict[str, str]:
    roles = [role.name for role in user.roles]
    return _pair(Kind.USER, user.id, {"epoch": user.epoch, "roles": roles})


def for_node(node: Node) -> dict[str, str]:
    return _pair(Kind.NODE, node.id, {"epoch": node.epoch, "roles": []})


def for_store(user: User) -> str:
    """What an algorithm store is given in the user's name: good for one thing, to ask this server who that is."""
    claims = {**_named(Kind.USER, {"epoch": user.epoch, "roles": []}), "aud": _STORE}
    token: str = create_access_token(user.id, expires_delta=_STORE_LIFETIME, additional_claims=claims)
    return token


def for_run(run: Run, lifetime: timedelta) -> str:
    """The upstream token, which only the proxy holds; its claims are checked against the tables on each use."""
    claims: dict[str, Any] = {
        "attempt": run.attempt,
        "job": run.task.job_id,
        "task": run.task_id,
        "organization": run.organization_id,
        "collaboration": run.collaboration_id,
        "node": run.node_id,
        "image": run.task.image,
        "roles": [],
    }
    token: str = create_access_token(run.id, expires_delta=lifetime, additional_claims=_named(Kind.RUN, claims))
    return token


class Purpose(StrEnum):
    """What a token that went out by mail is good for; each has an audience of its own."""

    PASSWORD = "skerry:reset-password"  # noqa: S105 - the name of an audience
    SECOND_FACTOR = "skerry:reset-second-factor"


RESET_LIFETIME = timedelta(minutes=60)


def for_reset(secret: str, user: User, purpose: Purpose, now: datetime) -> str:
    """Worthless for all but its purpose, and after its first use: the use counts the ``epoch`` on."""
    expires = int((now + RESET_LIFETIME).replace(tzinfo=UTC).timestamp())
    return jwt.encode({"sub": str(user.id), "epoch": user.epoch, "aud": purpose, "exp": expires}, secret, "HS256")


def read_reset(token: str, purpose: Purpose, now: datetime) -> tuple[int, int]:
    """The user's id and epoch. Raises jwt.InvalidTokenError for anything that is not such a token, or an old one."""
    secret, needed = current_app.config["JWT_SECRET_KEY"], ["sub", "aud", "exp", "epoch"]
    options: Any = {"require": needed, "verify_exp": False}
    claims = jwt.decode(token, secret, algorithms=["HS256"], audience=purpose, options=options)
    if claims["exp"] <= now.replace(tzinfo=UTC).timestamp():
        raise jwt.ExpiredSignatureError
    return int(claims["sub"]), int(claims["epoch"])


def presented(*, refresh: bool = False, store: bool = False) -> tuple[Kind, dict[str, Any]]:
    """The kind and the claims of the request's token; with ``store``, a store's counts, too.

    Raises LoginFailed, or what the library answers itself.
    """
    claims = _known() if not refresh else None
    if claims is None:
        verify_jwt_in_request(refresh=refresh)
        claims = get_jwt()
        if not refresh:
            _remember(claims)
    try:
        kind = Kind(claims["client_type"])
        int(claims["sub"])
    except (KeyError, ValueError, TypeError) as error:
        raise LoginFailed("This token is not of a kind that is known here.") from error
    if claims.get("aud") not in (_audience(kind, refresh=refresh), *([_STORE] if store else [])):
        raise LoginFailed("This token was made for another purpose.")
    return kind, claims


def _known() -> dict[str, Any] | None:
    """The claims of a token that was checked before and is of this time; whether it is revoked the tables say."""
    known: dict[str, dict[str, Any]] = current_app.extensions[_KNOWN]
    claims, now = known.get(request.headers.get("Authorization", "")), time.time()
    return claims if claims is not None and max(claims["nbf"], claims["iat"]) <= now < claims["exp"] else None


def _remember(claims: dict[str, Any]) -> None:
    known: dict[str, dict[str, Any]] = current_app.extensions[_KNOWN]
    if len(known) >= _MOST_KNOWN:
        known.clear()
    header = request.headers.get("Authorization")
    if header is not None and {"nbf", "iat", "exp"} <= set(claims):
        known[header] = claims


def _pair(kind: Kind, id_: int, claims: dict[str, Any]) -> dict[str, str]:
    return {
        "access_token": create_access_token(id_, additional_claims=_named(kind, claims)),
        "refresh_token": create_refresh_token(id_, additional_claims=_named(kind, claims, refresh=True)),
    }


def _named(kind: Kind, claims: dict[str, Any], *, refresh: bool = False) -> dict[str, Any]:
    return {**claims, "client_type": str(kind), "aud": _audience(kind, refresh=refresh)}


def _audience(kind: Kind, *, refresh: bool) -> str:
    return f"skerry:{kind}:{_REFRESH}" if refresh else f"skerry:{kind}"
