"""HTTP to a server or a gate: one call, its errors as skerry's, repeated where that does no harm.

What only reads, and what carries an idempotency key, is repeated when no answer comes; what creates something
without one only when it certainly was not sent.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from skerry.errors import (
    AuthenticationError,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    ServerError,
    ServerUnreachable,
    SkerryError,
)
from skerry.keepalive import KeepaliveAdapter
from skerry.unix_sockets import UnixAdapter

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods whose calls may be done twice."""
CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 60.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
SERVER_AWAY = frozenset({429, 502, 503, 504})
"""What a server, or a reverse proxy in its place, answers while it can't serve; worth asking again."""
GATE_AWAY = frozenset({429, 503, 504})
"""The same for a gate, whose 502 says that the server's answer can't be used."""
_ERRORS: dict[int, type[ServerError]] = {
    400: InvalidInput,
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
}


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


class Transport:
    """Sessions with one server, by a unix ``socket`` where it has one. Not for use by several threads at once."""

    def __init__(
        self,
        base_url: str,
        *,
        verify: bool | str = True,
        away: frozenset[int] = SERVER_AWAY,
        socket: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._away = away
        self._clock = clock
        self._sleep = sleep
        self._session = requests.Session()
        self._session.mount("http://", KeepaliveAdapter())
        self._session.mount("https://", KeepaliveAdapter())
        self._session.verify = verify
        self._session.auth = _keep_authorization
        self._session.trust_env = not is_loopback(self.base_url)
        if socket is not None:
            self._session.mount("http://", UnixAdapter(socket))

    def json(self, call: Call) -> Any:
        """The answer's JSON; raises ServerError or a subclass, or ServerUnreachable."""
        answer = self._send(call)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            message = f"{self.base_url} did not answer in JSON: is it the address and the path of a skerry server?"
            raise ServerError(message, answer.status_code) from error

    def open(self, call: Call) -> requests.Response:
        """The answer, whose body is the caller's to read and to close; raises as ``json`` does."""
        return self._send(replace(call, stream=True))

    def _send(self, call: Call) -> requests.Response:
        pauses = _pauses(self._clock() + call.patience, self._clock)
        problem: SkerryError
        while True:
            try:
                answer = self._attempt(call)
            except requests.RequestException as error:
                problem, may_repeat = self._explain(error), call.repeatable or _was_not_sent(error)
            else:
                if answer.status_code not in self._away:
                    return _check(answer, call)
                problem, may_repeat = _error(answer, call), call.repeatable
            pause = next(pauses, None)
            if pause is None or not may_repeat or isinstance(problem, ConfigurationError):
                raise problem
            self._sleep(pause)

    def _attempt(self, call: Call) -> requests.Response:
        headers = {"Accept": "application/json, */*", **(call.headers or {})}
        if call.token:
            headers["Authorization"] = f"Bearer {call.token}"
        return self._session.request(
            call.method,
            f"{self.base_url}/{call.path.lstrip('/')}",
            json=call.json,
            data=call.data,
            stream=call.stream,
            params=call.params,
            headers=headers,
            timeout=(CONNECT_TIMEOUT, call.timeout),
            allow_redirects=False,
        )

    def _explain(self, error: requests.RequestException) -> ServerUnreachable | ConfigurationError:
        if isinstance(error, requests.exceptions.SSLError):
            return ConfigurationError(
                f"The certificate of {self.base_url} can't be verified; if it is from a private authority, "
                "give its file as ca_file."
            )
        if isinstance(error, ValueError):
            return ConfigurationError(f"{self.base_url} is not an address such as https://server.example.org:443/api.")
        what = "does not answer in time" if isinstance(error, requests.Timeout) else "can't be reached"
        return ServerUnreachable(f"{self.base_url} {what}: is the address right, and is the server running?")


def is_loopback(url: str) -> bool:
    """Whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without an authentication of its own, requests replaces the token by what it finds in ~/.netrc."""
    return request


def _pauses(deadline: float, clock: Callable[[], float]) -> Iterator[float]:
    """Growing, jittered pauses until the deadline."""
    longest = _FIRST_PAUSE
    while (left := deadline - clock()) > 0:
        yield min(left, random.uniform(longest / 2, longest))  # noqa: S311 - spreads callers, protects nothing
        longest = min(longest * 2, _LONGEST_PAUSE)


def _was_not_sent(error: requests.RequestException) -> bool:
    """Nobody listened: the request never left."""
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


def _check(answer: requests.Response, call: Call) -> requests.Response:
    if not answer.ok or answer.is_redirect:
        raise _error(answer, call)
    return answer


def _error(answer: requests.Response, call: Call) -> ServerError:
    kind = _ERRORS.get(answer.status_code, ServerError)
    return kind(
        _message(answer) or f"The server answered {answer.status_code} to {call.method} {call.path}.",
        answer.status_code,
    )


def _message(answer: requests.Response) -> str:
    """The server's own words, with the fields that it names; nothing when it has none."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    if not isinstance(body, dict) or not isinstance(body.get("msg"), str):
        return ""
    errors = body.get("errors")
    details = "; ".join(f"{name}: {_join(texts)}" for name, texts in errors.items()) if isinstance(errors, dict) else ""
    return f"{body['msg']} ({details})" if details else cast("str", body["msg"])


def _join(texts: Any) -> str:
    return " ".join(map(str, texts)) if isinstance(texts, list) else str(texts)
