"""A user's login at a server: tokens, and the calls that carry them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from skerry.calls import Call
from skerry.contract import read_claims
from skerry.errors import AuthenticationError, ServerError
from skerry.transport import Transport

if TYPE_CHECKING:
    from requests import Response

AnswerT = TypeVar("AnswerT")

_EARLY = 30.0
"""Seconds before its end at which a token is renewed."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """``subject`` is the user's id; ``until`` is by this machine's monotonic clock, so clocks need not agree."""

    access: str
    refresh: str
    subject: int
    until: float

    @classmethod
    def of(cls, answer: Any, now: float) -> Tokens:
        """Raises AuthenticationError when the server did not give any, with its reason."""
        try:
            claims = read_claims(answer["access_token"])
            lifetime = float(claims["exp"]) - float(claims["iat"])
            return cls(answer["access_token"], answer["refresh_token"], int(claims["sub"]), now + lifetime)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(answer.get("msg", "")) if isinstance(answer, dict) else ""
            raise AuthenticationError(reason or "The server did not answer the log-in with tokens.", 401) from error


class Session:
    """Calls in a user's name. Renews the access token before its end; the user logs in again when that fails."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.monotonic) -> None:
        self.transport = transport
        self._clock = clock
        self._tokens: Tokens | None = None

    def log_in(self, username: str, password: str, mfa_code: str | None) -> int:
        """The user's id. Raises AuthenticationError when the server does not let the user in."""
        body = {"username": username, "password": password}
        if mfa_code is not None:
            body["mfa_code"] = str(mfa_code)
        try:
            answer = self.transport.json(Call("POST", "token/user", json=body, repeatable=True))
        except AuthenticationError as error:
            reason = str(error).rstrip(".")
            raise AuthenticationError(
                f'The server did not let "{username}" log in: {reason}. Check the name, the password and the address; '
                "after several failures an account is locked for a while.",
                error.status,
            ) from error
        self._tokens = Tokens.of(answer, self._clock())
        return self._tokens.subject

    def resume(self, refresh_token: str) -> int:
        """Goes on with an earlier login; the user's id. Raises AuthenticationError when it has expired."""
        call = Call("POST", "token/refresh", token=refresh_token, repeatable=True)
        try:
            self._tokens = Tokens.of(self.transport.json(call), self._clock())
        except ServerError as error:
            message = "Your log-in has expired: call authenticate(username, password) again."
            raise AuthenticationError(message, error.status) from error
        return self._tokens.subject

    @property
    def tokens(self) -> Tokens:
        """Raises AuthenticationError before the login."""
        if self._tokens is None:
            raise AuthenticationError("You are not logged in: call authenticate(username, password) first.", 401)
        return self._tokens

    def json(self, call: Call, transport: Transport | None = None) -> Any:
        """The answer's JSON, by another transport if need be; raises ServerError, a subclass, or ServerUnreachable."""
        return self._with_token(call, (transport or self.transport).json)

    def open(self, call: Call) -> Response:
        """The answer, whose body is the caller's to read and to close; raises as ``json`` does."""
        return self._with_token(call, self.transport.open)

    def _with_token(self, call: Call, send: Callable[[Call], AnswerT]) -> AnswerT:
        if self._clock() > self.tokens.until - _EARLY:
            self.resume(self.tokens.refresh)
        try:
            return send(replace(call, token=self.tokens.access))
        except ServerError as error:
            if error.status != 401 or "expired" not in str(error).lower():  # noqa: PLR2004
                raise
            self.resume(self.tokens.refresh)
            return send(replace(call, token=self.tokens.access))
