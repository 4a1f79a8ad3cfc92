"""The node's calls to its server: HTTP as the standard library speaks it, since the long one must be interruptible."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import select
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from skerry.audit import Head
from skerry.calls import KEY
from skerry.errors import (
    AuthenticationError,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    ServerError,
    ServerUnreachable,
)
from skerry.wire import End, Refusal, Status
from skerry_node.config import ServerSettings
from skerry_node.launchers.launcher import Attempt
from skerry_node.orders import (
    Others,
    Reserved,
    Self,
    Welcome,
    Work,
    parse_others,
    parse_reserved,
    parse_self,
    parse_welcome,
    parse_work,
)

log = logging.getLogger(__name__)

WAIT_SECONDS = 25
_SECONDS = 30
_APART_SECONDS = 60.0
_LARGEST_ANSWER = 64 << 20
_ERRORS: dict[int, type[ServerError]] = {
    400: InvalidInput,
    401: AuthenticationError,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
}
_AWAY = frozenset({502, 503, 504})
_REDIRECTS = range(300, 400)
_TRIES = 10
"""Of what is asked for again by itself, in some 20 seconds."""
_GROWTH = 1.5
"""Of the pauses: whoever was away for some time is asked again within half of that time."""


class Interrupted(Exception):
    """The long call was broken off on purpose."""


class KeyRefused(AuthenticationError):
    """The node's API key itself, and not only a token of another time than the server's clock now is."""


class BackOff:
    """Pauses that grow, with jitter, so that a hundred nodes don't come back in the same instant."""

    def __init__(self, longest: float = 30.0) -> None:
        self._longest = longest
        self._next = 0.2

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._next = min(self._next * _GROWTH, self._longest)
        return pause

    def reset(self) -> None:
        self._next = 0.2


class ServerClock:
    """How far this machine's clock is from the server's, as the heads of its answers tell to a second or so."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._said = 0.0

    def hear(self, date: str | None) -> None:
        """Says so in the log when the two are minutes apart, and again when that has changed."""
        try:
            apart = self._now() - parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        if abs(apart) < _APART_SECONDS:
            self._said = 0.0
        elif abs(apart - self._said) >= _APART_SECONDS / 2:
            self._said = apart
            self._say(apart)

    @staticmethod
    def _say(apart: float) -> None:
        log.warning(
            "This machine's clock is %d s %s the server's: inputs and keys seem older or newer than they are. Set both "
            "by the same time service (NTP).",
            abs(apart),
            "ahead of" if apart > 0 else "behind",
        )


class Server:
    """Safe for threads. Every call raises ServerUnreachable, or the ServerError that fits the status.

    ``api_key`` is asked at each log-in: the key may have been rotated since.
    """

    def __init__(self, settings: ServerSettings, api_key: Callable[[], str]) -> None:
        url = urlsplit(settings.url)
        self._host = url.hostname or ""
        self._tls = _make_context(settings) if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._proxy = urlsplit(settings.https_proxy) if settings.https_proxy else None
        self._path = settings.api_path
        self._api_key = api_key
        self.clock = ServerClock()
        self._token: str | None = None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._waiting: http.client.HTTPConnection | None = None

    def log_in(self) -> None:
        """Gets a new token; the others are renewed by themselves. Raises KeyRefused."""
        try:
            answer = self._once("POST", "/token/node", {"api_key": self._api_key()}, None)
        except AuthenticationError as error:
            raise KeyRefused(str(error), error.status) from error
        token = _text(answer, "access_token")
        with self._lock:
            self._token = token

    def server_id(self) -> str:
        """Which server this is; needs no key."""
        return _text(self._once("GET", "/skerry/info", None, None), "server_id")

    def join(self, secret: str) -> Welcome:
        """Trades an invitation's secret for an API key; needs no key. An answer that was lost is asked for again."""
        named, pauses = {KEY: str(uuid.uuid4())}, BackOff()
        for _ in range(_TRIES):
            with contextlib.suppress(ServerUnreachable):
                return parse_welcome(self._once("POST", "/skerry/join", {"secret": secret}, None, more=named))
            time.sleep(pauses.pause())
        return parse_welcome(self._once("POST", "/skerry/join", {"secret": secret}, None, more=named))

    def rotate_key(self) -> str:
        """A new API key, which takes the place of the present one when it is first used."""
        return _text(self._call("POST", "/skerry/node/key", {}), "api_key")

    def register_keys(self, organization: int, keys: dict[str, Any]) -> None:
        """Raises Conflict when the organization has registered others."""
        self._call("PUT", f"/skerry/organization/{organization}/keys", keys)

    def describe_self(self) -> Self:
        return parse_self(self._call("GET", "/skerry/node/self"))

    def share(self, rows: list[tuple[str, str]]) -> None:
        """Replaces what the server shows of the node's configuration."""
        self._call("PUT", "/skerry/node/self/config", {"data": [{"key": key, "value": value} for key, value in rows]})

    def leave(self) -> None:
        self._call("POST", "/skerry/node/leave", {})

    def report(self, attempt: Attempt, status: Status) -> None:
        """Says that the run is being prepared or is active. Raises Conflict when it is no longer this attempt's."""
        self._call("POST", f"/skerry/run/{attempt.run}/status", {"attempt": attempt.number, "status": status})

    def show_log(self, attempt: Attempt, log: str) -> None:
        """Shows the asker what the run has logged so far, sealed; raises Conflict like ``report``."""
        self._call("PUT", f"/skerry/run/{attempt.run}/log", {"attempt": attempt.number, "log": log})

    def run_token(self, attempt: Attempt) -> str:
        """A fresh upstream token for a run; raises Conflict like ``report``."""
        answer = self._call("POST", f"/skerry/run/{attempt.run}/token", {"attempt": attempt.number})
        return _text(answer, "token")

    def reserve_address(self, attempt: Attempt) -> Reserved:
        """The run's address in the VPN. Raises Conflict like ``report``, InvalidInput when there is none left."""
        return parse_reserved(self._call("POST", f"/skerry/run/{attempt.run}/peer", {"attempt": attempt.number}))

    def introduce(self, attempt: Attempt, statement: dict[str, Any]) -> Others:
        """Says how the others of its job reach the run; those that are there. Raises Conflict like ``report``."""
        body = {"attempt": attempt.number, "statement": statement}
        return parse_others(self._call("PUT", f"/skerry/run/{attempt.run}/peer", body))

    def finish(self, attempt: Attempt, status: End, text: str) -> None:
        """Ends a run whose input could not be opened, so that there is nothing to seal for; may be repeated."""
        body = {"attempt": attempt.number, "status": status, "log": text, "result": None, "staged": False}
        self._call("POST", f"/skerry/run/{attempt.run}/finish", body)

    def work(
        self,
        capacity: int,
        holding: list[Attempt],
        jobs: list[int],
        head: Head,
        changed: threading.Event,
        *,
        wait: bool = True,
        peers: Mapping[Attempt, str] | None = None,
        refuses: Refusal | None = None,
    ) -> Work:
        """The one long call. ``head``: of the node's audit journal, for the server to keep.

        ``peers``: what the node knows of the peers of its runs in the VPN. ``refuses``: why it takes no runs at all.

        Raises Interrupted when ``changed`` is set; who sets it calls ``interrupt`` then.
        """
        body = {
            "capacity": capacity,
            "holding": [
                {"run": attempt.run, "attempt": attempt.number, "peers": (peers or {}).get(attempt)}
                for attempt in holding
            ],
            "jobs": jobs,
            "wait": WAIT_SECONDS if wait else 0,
            "head": head.as_dict() if head.sequence else None,
            "refuses": refuses,
        }
        try:
            return parse_work(self._call("POST", "/skerry/node/work", body, changed=changed))
        except ServerUnreachable:
            if changed.is_set():
                raise Interrupted from None
            raise

    def interrupt(self) -> None:
        """Breaks off the long call, if one is under way."""
        with self._lock:
            if self._waiting is not None and self._waiting.sock is not None:
                with contextlib.suppress(OSError):
                    self._waiting.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(self, method: str, path: str, body: Any = None, *, changed: threading.Event | None = None) -> Any:
        """One call with the node's token, which is renewed once when the server no longer takes it."""
        with self._lock:
            token = self._token
        if token is not None:
            try:
                return self._once(method, path, body, token, changed=changed)
            except AuthenticationError:
                log.info("The server no longer takes the node's token; logging in again.")
        self.log_in()
        return self._once(method, path, body, self._token, changed=changed)

    def _once(
        self,
        method: str,
        path: str,
        body: Any,
        token: str | None,
        *,
        more: Mapping[str, str] | None = None,
        changed: threading.Event | None = None,
    ) -> Any:
        raw = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if raw is not None else {})
        headers |= more or {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with self._connection(WAIT_SECONDS + _SECONDS if changed else _SECONDS) as connection:
            if changed is None:
                status, answer, date = _exchange(connection, method, self._path + path, raw, headers)
            else:
                with self._interruptible(connection, changed):
                    status, answer, date = _exchange(connection, method, self._path + path, raw, headers)
        self.clock.hear(date)
        return _parse(status, answer, f"{method} {path}")

    @contextlib.contextmanager
    def _interruptible(self, connection: http.client.HTTPConnection, changed: threading.Event) -> Iterator[None]:
        with self._lock:
            self._waiting = connection
        try:
            if changed.is_set():
                raise ConnectionAbortedError
            yield
        finally:
            with self._lock:
                self._waiting = None

    @contextlib.contextmanager
    def _connection(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        """A kept connection where there is one; one on which something went wrong is closed."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        connection = kept if kept is not None and _is_alive(kept) else self._connect()
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(seconds)
            yield connection
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise ServerUnreachable(f"The server at {self._host}:{self._port} does not answer ({reason}).") from error
        with self._lock:
            self._idle.append(connection)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
        if self._proxy is None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=self._tls)
        way = http.client.HTTPSConnection(
            self._proxy.hostname or "", self._proxy.port, timeout=_SECONDS, context=self._tls
        )
        way.set_tunnel(self._host, self._port)
        return way


def _text(answer: Any, name: str) -> str:
    """A field of an answer; raises ServerError when it is missing."""
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str):
        raise ServerError(f"The server's answer has no {name}.", 200)
    return value


def _make_context(settings: ServerSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"server.ca_file: {settings.ca_file} holds no certificates.") from error


def _is_alive(connection: http.client.HTTPConnection) -> bool:
    """A kept connection has nothing to read, unless the server has closed it."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    if poll.poll(0):
        connection.close()
        return False
    return True


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, bytes, str | None]:
    """Status, body, and when the server thinks that it is."""
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read(_LARGEST_ANSWER + 1)
    if len(answer) > _LARGEST_ANSWER or response.status in _REDIRECTS:
        raise http.client.HTTPException
    return response.status, answer, response.headers.get("Date")


def _parse(status: int, answer: bytes, what: str) -> Any:
    if status in _AWAY:
        raise ServerUnreachable(f"The server is not ready ({status}).")
    try:
        value = json.loads(answer) if answer else None
    except (ValueError, RecursionError) as error:
        raise ServerError(f"The server's answer to {what} is not JSON (status {status}).", status) from error
    if status >= http.client.BAD_REQUEST:
        message = value.get("msg") if isinstance(value, dict) else None
        raise _ERRORS.get(status, ServerError)(f"{what}: {message or 'the server gives no reason'} ({status})", status)
    return value
