"""HTTP to a server, by ``requests``: one call, its errors as skerry's, repeated where that does no harm."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from skerry.calls import CONNECT_TIMEOUT, Call, Patience, Unanswered, error_of, parse, persist
from skerry.errors import ConfigurationError, ServerUnreachable
from skerry.keepalive import KeepaliveAdapter

_AWAY = frozenset({429, 502, 503, 504})
"""What a server, or a reverse proxy in its place, answers while it can't serve; worth asking again."""


class Transport:
    """Sessions with one server. Not for use by several threads at once."""

    def __init__(
        self,
        base_url: str,
        *,
        verify: bool | str = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._clock = clock
        self._sleep = sleep
        self._session = requests.Session()
        self._session.mount("http://", KeepaliveAdapter())
        self._session.mount("https://", KeepaliveAdapter())
        self._session.verify = verify
        self._session.auth = _keep_authorization
        self._session.trust_env = not is_loopback(self.base_url)

    def json(self, call: Call) -> Any:
        """The answer's JSON; raises ServerError or a subclass, or ServerUnreachable."""
        answer = self._send(call)
        return parse(answer.status_code, answer.content, self.base_url)

    def open(self, call: Call) -> requests.Response:
        """The answer, whose body is the caller's to read and to close; raises as ``json`` does."""
        return self._send(replace(call, stream=True))

    def patience(self, seconds: float) -> Patience:
        """For what takes several calls, by this transport's clock."""
        return Patience(seconds, self._clock, self._sleep)

    def _send(self, call: Call) -> requests.Response:
        answer = persist(call, self._attempt, self._clock, self._sleep)
        if not answer.ok or answer.is_redirect:
            raise error_of(answer.status_code, answer.content, call)
        return answer

    def _attempt(self, call: Call) -> requests.Response:
        try:
            answer = self._request(call)
            if answer.status_code in _AWAY:
                raise Unanswered(error_of(answer.status_code, answer.content, call), sent=True)
        except requests.RequestException as error:
            raise Unanswered(self._explain(error), sent=not _was_not_sent(error)) from error
        return answer

    def _request(self, call: Call) -> requests.Response:
        return self._session.request(
            call.method,
            f"{self.base_url}/{call.path.lstrip('/')}",
            json=call.json,
            data=call.data,
            stream=call.stream,
            params=call.params,
            headers=call.head,
            timeout=(CONNECT_TIMEOUT, call.timeout),
            allow_redirects=False,
        )

    def _explain(self, error: requests.RequestException) -> ServerUnreachable:
        """Raises ConfigurationError for what trying again does not mend."""
        if isinstance(error, requests.exceptions.SSLError):
            raise ConfigurationError(
                f"The certificate of {self.base_url} can't be verified; if it is from a private authority, "
                "give its file as ca_file."
            ) from error
        if isinstance(error, ValueError):
            raise ConfigurationError(
                f"{self.base_url} is not an address such as https://server.example.org:443/api."
            ) from error
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


def _was_not_sent(error: requests.RequestException) -> bool:
    """Nobody listened: the request never left."""
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)
