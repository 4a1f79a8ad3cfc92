"""Tokens: one kind for each purpose, and none is taken in place of another.

HS256, with the claims that vantage6's clients read (contract, section 3) and an audience for each kind. A token
carries the ``epoch`` of the password or API key behind it, and is dead when that changed. Its times go by the server's
clock, which all its processes share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, cast

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
_EXTENSION = "skerry_tokens"
_MOST_KNOWN = 4096
_APART_SECONDS = 60
"""By so much another process may believe the clock to be later: each reads it every few seconds, and not at once."""
_STORE_LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Desk:
    """What one application makes and checks tokens with. ``known``: claims that were checked, by their header.

    To check a signature anew takes as long as to read the caller's rules.
    """

    clock: Callable[[], datetime]
    access: timedelta
    refresh: timedelta
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def now(self) -> float:
        return self.clock().replace(tzinfo=UTC).timestamp()


def install(app: Flask, settings: Tokens, secret: str, clock: Callable[[], datetime]) -> JWTManager:
    """Sets the token library up: which header, which algorithm, which audiences there are, and what time it is."""
    app.config.update(
        JWT_SECRET_KEY=secret,
        JWT_ALGORITHM="HS256",
        JWT_TOKEN_LOCATION=["headers"],
        JWT_DECODE_AUDIENCE=_AUDIENCES,
        JWT_DECODE_LEEWAY=math.inf,  # the library knows only this machine's clock: _is_timely looks at the server's
        JWT_VERIFY_SUB=False,  # vantage6's clients build URLs from an integer
        JWT_ERROR_MESSAGE_KEY="msg",
    )
    access, refresh = timedelta(minutes=settings.access_minutes), timedelta(minutes=settings.refresh_minutes)
    app.extensions[_EXTENSION] = _Desk(clock, access, refresh)
    manager = JWTManager(app)
    manager.token_verification_loader(_is_timely)
    manager.token_verification_failed_loader(_from_another_time)
    return manager


def _desk() -> _Desk:
    return cast("_Desk", current_app.extensions[_EXTENSION])


def _is_timely(_header: object, claims: dict[str, Any]) -> bool:
    begins = max(claims.get("nbf", math.inf), claims.get("iat", math.inf))
    return bool(begins - _APART_SECONDS <= _desk().now() < claims.get("exp", 0))


def _from_another_time(_header: object, _claims: object) -> tuple[Response, int]:
    """It expired, or the clock was set back since it was given. Its holder gets a new one."""
    return jsonify(msg="Token has expired"), 401


def for_user(user: User) -> dict[str, str]:
    roles = [role.name for role in user.roles]
    return _pair(Kind.USER, user.id, {"epoch": user.epoch, "roles": roles})


def for_node(node: Node) -> dict[str, str]:
    return _pair(Kind.NODE, node.id, {"epoch": node.epoch, "roles": []})


def for_store(user: User) -> str:
    """What an algorithm store is given in the user's name: good for one thing, to ask this server who that is."""
    claims = {**_named(Kind.USER, {"epoch": user.epoch, "roles": []}, _STORE_LIFETIME), "aud": _STORE}
    token: str = create_access_token(user.id, additional_claims=claims)
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
    token: str = create_access_token(run.id, additional_claims=_named(Kind.RUN, claims, lifetime))
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
    claims = _desk().known.get(request.headers.get("Authorization", ""))
    return claims if claims is not None and _is_timely(None, claims) else None


def _remember(claims: dict[str, Any]) -> None:
    known = _desk().known
    if len(known) >= _MOST_KNOWN:
        known.clear()
    header = request.headers.get("Authorization")
    if header is not None:
        known[header] = claims


def _pair(kind: Kind, id_: int, claims: dict[str, Any]) -> dict[str, str]:
    access, refresh = _named(kind, claims, _desk().access), _named(kind, claims, _desk().refresh, refresh=True)
    return {
        "access_token": create_access_token(id_, additional_claims=access),
        "refresh_token": create_refresh_token(id_, additional_claims=refresh),
    }


def _named(kind: Kind, claims: dict[str, Any], lifetime: timedelta, *, refresh: bool = False) -> dict[str, Any]:
    now = int(_desk().now())
    times = {"iat": now, "nbf": now, "exp": now + int(lifetime.total_seconds())}
    return {**claims, **times, "client_type": str(kind), "aud": _audience(kind, refresh=refresh)}


def _audience(kind: Kind, *, refresh: bool) -> str:
    return f"skerry:{kind}:{_REFRESH}" if refresh else f"skerry:{kind}"
