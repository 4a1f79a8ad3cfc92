"""The one way from the proxy to the server: requests made anew from parsed parts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import IO, Any, TypeVar

import requests

from skerry.calls import Patience
from skerry.errors import (
    AuthenticationError,
    Conflict,
    InvalidInput,
    NotFound,
    ServerError,
    ServerUnreachable,
)
from skerry.keepalive import KeepaliveAdapter
from skerry.streams import whole_size
from skerry_proxy.fields import Fields
from skerry_proxy.settings import Settings

LARGEST_ANSWER = 64 * 1024 * 1024
PATIENCE = 60.0
"""Seconds for which what may be repeated is repeated while the server can't be reached."""

_CONNECT_SECONDS = 5
_READ_SECONDS = 90
_PIECE = 1024 * 1024
_CONNECTIONS = 64
_AWAY = frozenset({502, 503, 504})
_ERRORS: dict[int, type[ServerError]] = {
    400: InvalidInput,
    401: AuthenticationError,
    404: NotFound,
    409: Conflict,
    422: InvalidInput,
}
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``path`` is made of constants and numbers; ``token`` None is a call without one."""

    method: str
    path: str
    token: str | None = None
    params: Sequence[tuple[str, str | int]] = ()
    json: Any = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Where a payload is put, and where the server says how much of it has come (``asked``)."""

    path: str
    asked: str
    params: Sequence[tuple[str, str | int]] = ()


class Upstream:
    """The server. Safe for threads; connections are kept and shared; redirects are never followed."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.server_url + settings.api_path
        self._session = _make_session(settings.ca_file, settings.https_proxy)

    def answer(self, call: Call) -> Any:
        """The JSON of the answer. Raises ServerUnreachable, or the ServerError that fits the status."""
        with self._send(call) as response:
            _refuse_errors(response)
            return _read_json(response)

    @contextlib.contextmanager
    def download(
        self,
        path: str,
        token: Callable[[], str],
        closing: threading.Event | None = None,
        patience: float | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of a stored payload, piece by piece, from where a connection broke off when it did.

        Raises as ``answer`` does, while it is read: ServerUnreachable when nothing has come yet, when for so many
        seconds nothing more has come (PATIENCE unless told), or ``closing`` is set.
        """
        with contextlib.closing(self._download(path, token, _patience(closing, patience))) as pieces:
            yield pieces

    def _download(self, path: str, token: Callable[[], str], patience: Patience) -> Generator[bytes]:
        have, size = 0, None
        while size is None or have < size:
            try:
                with self._send(Call("GET", path, token()), accept="application/octet-stream", start=have) as response:
                    _refuse_errors(response)
                    size = whole_size(response, have)
                    for piece in _pieces(response):
                        have += len(piece)
                        yield piece
                        patience.renew()
            except ServerUnreachable:
                if not have or not patience.pause():
                    raise

    def upload(self, to: Upload, token: str, file: IO[bytes]) -> None:
        """Sends the file as the body of a PUT, from where an earlier try broke off. Raises as ``answer`` does."""
        size = file.seek(0, os.SEEK_END)
        known = Fields(self.answer(Call("GET", to.asked, token, to.params)), "The server's answer")
        if known.boolean("complete"):
            return
        start = min(known.count("received"), size)
        file.seek(start)
        query = [*to.params, ("start", start), ("size", size)]
        self._put(Call("PUT", to.path, token, query), _Rest(file, size - start))

    def upload_stream(self, to: Upload, token: str, pieces: Iterator[bytes]) -> None:
        """Sends these as the body of a PUT, all at once. Raises as ``answer`` does."""
        self._put(Call("PUT", to.path, token, to.params), pieces)

    def _put(self, call: Call, data: _Rest | Iterator[bytes]) -> None:
        with self._send(call, data=data) as response:
            _refuse_errors(response)

    def close(self) -> None:
        self._session.close()

    @contextlib.contextmanager
    def _send(
        self,
        call: Call,
        *,
        data: _Rest | Iterator[bytes] | None = None,
        accept: str = "application/json",
        start: int = 0,
    ) -> Iterator[requests.Response]:
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if call.token is not None:
            headers["Authorization"] = f"Bearer {call.token}"
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        try:
            with self._session.request(
                call.method,
                self._base + call.path,
                params=list(call.params),
                json=call.json,
                data=data,
                headers=headers,
                allow_redirects=False,
                stream=True,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            ) as response:
                yield response
        except requests.RequestException as error:
            _log.debug("%s %s: %s", call.method, call.path, type(error).__name__)
            raise ServerUnreachable("The server can't be reached at the moment.") from error


class _Rest:
    """A file from where it stands to its end: ``requests`` sends it in pieces, and announces its length."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._file.read(_PIECE):
            yield piece


def patiently(action: Callable[[], T], closing: threading.Event | None = None, patience: float | None = None) -> T:
    """What the action returns; it is repeated while the server is away: only for what may be done twice.

    Raises ServerUnreachable after so many seconds (PATIENCE unless told), or as soon as ``closing`` is set.
    """
    hope = _patience(closing, patience)
    while True:
        try:
            return action()
        except ServerUnreachable:
            if not hope.pause():
                raise


def _patience(closing: threading.Event | None, seconds: float | None) -> Patience:
    return Patience(PATIENCE if seconds is None else seconds, time.monotonic, (closing or threading.Event()).wait)


def _make_session(ca_file: str | None, https_proxy: str | None) -> requests.Session:
    session = requests.Session()
    session.proxies = {"https": https_proxy} if https_proxy else {}
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers["User-Agent"] = "skerry-proxy"
    session.verify = ca_file or _system_store()
    adapter = KeepaliveAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _system_store() -> str | bool:
    """The machine's own certificates, which every user may read; else those that ``requests`` brings."""
    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, "/etc/ssl/certs/ca-certificates.crt")
    return next((path for path in candidates if path and Path(path).is_file()), True)


def _refuse_errors(response: requests.Response) -> None:
    status = response.status_code
    if status in _AWAY:
        raise ServerUnreachable("The server can't be reached at the moment.")
    if not 200 <= status < 300:  # noqa: PLR2004
        raise _ERRORS.get(status, ServerError)(_read_message(response), status)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ServerError("The server sent an encoded answer, which was not asked for.", status)


def _read_message(response: requests.Response) -> str:
    """The server's own sentence, or one about its status."""
    fallback = f"The server answered with status {response.status_code}."
    if not 400 <= response.status_code < 500:  # noqa: PLR2004
        return fallback
    try:
        body = _read_json(response)
    except ServerError:
        return fallback
    message = body.get("msg") if isinstance(body, dict) else None
    return message if isinstance(message, str) else fallback


def _read_json(response: requests.Response) -> Any:
    """The body; None for an empty one. Raises ServerError for what is no JSON or larger than LARGEST_ANSWER."""
    body = bytearray()
    for piece in _pieces(response):
        body += piece
        if len(body) > LARGEST_ANSWER:
            raise ServerError("The server's answer is larger than 64 MiB.", response.status_code)
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        raise ServerError("The server's answer is not JSON.", response.status_code) from error


def _pieces(response: requests.Response) -> Iterator[bytes]:
    yield from response.iter_content(_PIECE)
