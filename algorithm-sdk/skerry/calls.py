"""One call to a server or a gate: what it is, when it is made again, and what its errors are. No I/O of its own.

What only reads, and what carries an idempotency key, is repeated when no answer comes; what creates something
without one only when it certainly was not sent.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from skerry.errors import AuthenticationError, Conflict, InvalidInput, NotFound, ServerError, SkerryError

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods whose calls may be done twice."""
KEY = "Idempotency-Key"
"""A header: what carries it a server or a gate does once, however often it hears of it."""
CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 60.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_ERRORS: dict[int, type[ServerError]] = {
    400: InvalidInput,
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
}
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``repeatable``: doing it twice is as good as once. ``patience``: seconds to go on trying.

    ``data``: the body, piece by piece, in place of ``json``. ``stream``: the answer's body is not read yet.
    """

    method: str
    path: str
    json: Any = None
    data: Iterable[bytes] | None = None
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    token: str = ""
    repeatable: bool = False
    patience: float = 30.0
    timeout: float = ANSWER_TIMEOUT
    stream: bool = False

    @property
    def head(self) -> dict[str, str]:
        """What is said above the body."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Accept": "application/json, */*", **(self.headers or {}), **bearer}


class Unanswered(Exception):
    """No answer came to a call, or none that counts. ``problem`` is raised when it is not made again."""

    def __init__(self, problem: SkerryError, *, sent: bool) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.sent = sent


class Patience:
    """Growing, jittered pauses between tries, until so many seconds have passed in which nothing has come of them.

    ``sleep`` returns something true when there are to be no more tries.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self.renew()

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._deadline - self._clock())

    def renew(self) -> None:
        """There was progress."""
        self._deadline, self._longest = self._clock() + self._seconds, _FIRST_PAUSE

    def pause(self) -> bool:
        """Waits for a moment; False when there is no patience left, at once then."""
        if not (left := self.left):
            return False
        longest, self._longest = self._longest, min(self._longest * 2, _LONGEST_PAUSE)
        return not self._sleep(min(left, random.uniform(longest / 2, longest)))  # noqa: S311 - spreads callers, protects nothing


def persist(
    call: Call, attempt: Callable[[Call], AnswerT], clock: Callable[[], float], sleep: Callable[[float], None]
) -> AnswerT:
    """What the attempt gives, which is made again, after growing pauses, where that does no harm.

    ``attempt`` raises Unanswered. The last problem is raised when the call's patience ends.
    """
    patience = Patience(call.patience, clock, sleep)
    while True:
        try:
            return attempt(call)
        except Unanswered as error:
            if not (call.repeatable or not error.sent) or not patience.pause():
                raise error.problem from error.__cause__


def parse(status: int, body: bytes, base_url: str) -> Any:
    """The JSON of an answer; raises ServerError when it is none."""
    try:
        return json.loads(body) if body else {}
    except ValueError as error:
        message = f"{base_url} did not answer in JSON: is it the address and the path of a skerry server?"
        raise ServerError(message, status) from error


def error_of(status: int, body: bytes, call: Call) -> ServerError:
    """The error that a status stands for, in the server's own words where it has any."""
    kind = _ERRORS.get(status, ServerError)
    return kind(_message(body) or f"The server answered {status} to {call.method} {call.path}.", status)


def _message(raw: bytes) -> str:
    """The server's own words, with the fields that it names; nothing when it has none."""
    try:
        body = json.loads(raw)
    except ValueError:
        return ""
    if not isinstance(body, dict) or not isinstance(body.get("msg"), str):
        return ""
    errors = body.get("errors")
    details = "; ".join(f"{name}: {_join(texts)}" for name, texts in errors.items()) if isinstance(errors, dict) else ""
    return f"{body['msg']} ({details})" if details else cast("str", body["msg"])


def _join(texts: Any) -> str:
    return " ".join(map(str, texts)) if isinstance(texts, list) else str(texts)
