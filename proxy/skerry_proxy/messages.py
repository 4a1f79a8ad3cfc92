"""HTTP/1.1 as the gate speaks it: one socket, one request after the other, and nothing that could be read two ways.

``h11`` parses; what it lets pass out of politeness is refused here first, on the raw bytes of the head.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import h11

from skerry_proxy.spools import filled_spool

BLOBS_PATH = "/blobstream"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_LARGEST_HEAD = 16 * 1024
_PIECE = 64 * 1024
_ONCE = (
    b"host",
    b"authorization",
    b"x-public-key",
    b"idempotency-key",
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"expect",
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_TARGET = re.compile(r"/(?!/)[!-~]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Refusal(Exception):
    """A request gets this status and sentence; with ``closes`` nothing more is read from its connection."""

    def __init__(self, status: int, message: str, *, closes: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.closes = closes


class Gone(Exception):
    """The other side closed the connection, or said nothing for too long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes that one connection may use. ``request``: to send a whole request;
    ``linger``: to read an answer that ended the connection. Of all connections of a run together, ``at_once``
    requests are served as they come, and then ``per_second``: more wait their turn.
    """

    idle: float = 75.0
    head: float = 5.0
    send: float = 30.0
    request: float = 600.0
    linger: float = 2.0
    body: int = 64 * 1024 * 1024
    blob: int = 512 * 1024 * 1024
    at_once: int = 1000
    per_second: float = 50.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read to its end. ``body`` is at its start; ``size`` are its bytes.

    ``public_key``: whose input a blob is, as vantage6's tools say it. ``key``: the same for each telling of one wish.
    """

    method: str
    path: str
    query: str
    authorization: str | None
    body: IO[bytes]
    size: int
    public_key: str | None = None
    key: str | None = None

    def read_json(self) -> Any:
        """Raises Refusal (400) for a body that is not JSON."""
        try:
            return json.load(self.body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "The body of the request is not JSON.") from error


@dataclass(frozen=True, slots=True)
class Response:
    """``body`` is JSON: as bytes, or as a file at its start, that is closed when it was sent.

    ``told``: to be called with whether all of it went out.
    """

    status: int
    body: bytes | IO[bytes]
    size: int
    headers: tuple[tuple[str, str], ...] = field(default=())
    told: Callable[[bool], None] | None = None

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Response:
        body = json.dumps(value).encode()
        return cls(status, body, len(body))

    @classmethod
    def refuse(cls, refusal: Refusal) -> Response:
        return cls.of({"msg": refusal.message}, refusal.status)


class Connection:
    """One accepted socket."""

    def __init__(self, connected: socket.socket, limits: Limits, folder: Path) -> None:
        self._socket = connected
        self._limits = limits
        self._folder = folder
        self._buffer = b""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._closes = False
        self._has_body = True

    def read(self) -> Request:
        """The next request. Raises Gone at the end, and Refusal for what is not to be served."""
        head = self._read_head()
        _check_head(head)
        self._http.receive_data(head)
        started = self._next_event()
        if not isinstance(started, h11.Request):
            raise Refusal(400, "This is not an HTTP/1.1 request.", closes=True)
        self._has_body = started.method != b"HEAD"
        method, path, query = _check_request(started)
        with filled_spool(self._folder) as body:
            size = self._read_body(body, self._limits.blob if path == BLOBS_PATH else self._limits.body)
            if method == "GET" and size:
                raise Refusal(400, "A GET request has no body.", closes=True)
        shown = _header(started, b"authorization")
        whose, key = _header(started, b"x-public-key"), _header(started, b"idempotency-key")
        return Request(method, path, query, shown, body, size, whose, key)

    def read_connect(self) -> str:
        """The target of a CONNECT, before which nothing else may come. Raises Gone, and Refusal for all else."""
        head = self._read_head()
        _check_head(head)
        self._http.receive_data(head)
        started = self._next_event()
        if not isinstance(started, h11.Request) or started.method != b"CONNECT":
            raise Refusal(405, "Only CONNECT leads out of here: ask for an https address.", closes=True)
        named = {name for name, _ in started.headers}
        if self._buffer or named & {b"content-length", b"transfer-encoding"}:
            raise Refusal(400, "Nothing may follow a CONNECT before it is answered.", closes=True)
        return started.target.decode("latin-1")

    def accept_connect(self) -> None:
        """Answers that CONNECT: from here on the socket is its caller's. Raises Gone."""
        self._send(self._http.send(h11.Response(status_code=200, headers=[], reason="Connected")) or b"")

    def write(self, response: Response, *, closes: bool = False) -> bool:
        """Sends the response; whether another request may follow. Raises Gone."""
        self._closes = self._closes or closes
        headers = [("Content-Type", "application/json"), ("Content-Length", str(response.size)), *response.headers]
        if self._closes:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        waiting = self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        for piece in _pieces(response.body) if self._has_body else ():
            self._send(waiting + (self._http.send(h11.Data(data=piece)) or b""))
            waiting = b""
        self._send(waiting + (self._http.send(h11.EndOfMessage()) or b""))
        return not self._closes and self._start_next()

    def refuse(self, refusal: Refusal) -> None:
        """Answers what could not be read, in so far as HTTP still allows it; nothing more is read."""
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self.write(Response.refuse(refusal), closes=True)

    def linger(self) -> None:
        """Reads on for a moment: a socket that is closed with something unread takes its answer back."""
        deadline = time.monotonic() + self._limits.linger
        with contextlib.suppress(Gone, OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline:
                self._buffer = b""
                self._fill(deadline)

    def _read_head(self) -> bytes:
        """The bytes up to the empty line, which are taken from the buffer."""
        deadline = time.monotonic() + self._limits.idle
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LARGEST_HEAD:
                raise Refusal(431, "The head of the request is larger than 16 KiB.", closes=True)
            if not self._buffer:
                self._fill(deadline)
                deadline = time.monotonic() + self._limits.head
            else:
                self._fill(deadline)
        head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
        if len(head) > _LARGEST_HEAD:
            raise Refusal(431, "The head of the request is larger than 16 KiB.", closes=True)
        return head

    def _read_body(self, body: IO[bytes], largest: int) -> int:
        """Copies the body; how many bytes it had."""
        size, deadline = 0, time.monotonic() + self._limits.request
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._feed(deadline)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > largest:
                    raise Refusal(413, f"The body of the request is larger than {largest} bytes.", closes=True)
                body.write(event.data)
            else:
                raise Gone
        body.seek(0)
        return size

    def _feed(self, deadline: float) -> None:
        if self._http.they_are_waiting_for_100_continue:
            go_ahead = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._send(self._http.send(go_ahead) or b"")
        if not self._buffer:
            self._fill(deadline)
        self._http.receive_data(self._buffer)
        self._buffer = b""

    def _start_next(self) -> bool:
        """Whether the connection can serve another request. What came before its predecessor was answered is not."""
        self._buffer = self._http.trailing_data[0] + self._buffer
        if self._buffer or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise Refusal(error.error_status_hint, "This is not an HTTP/1.1 request.", closes=True) from error

    def _fill(self, deadline: float) -> None:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._socket.recv(_PIECE)
        except OSError as error:
            raise Gone from error
        if not piece:
            raise Gone
        self._buffer += piece

    def _send(self, data: bytes) -> None:
        if not data:
            return
        try:
            self._socket.settimeout(self._limits.send)
            self._socket.sendall(data)
        except OSError as error:
            raise Gone from error


def _check_head(head: bytes) -> None:
    """Raises Refusal for a head that two parsers could read in two ways."""
    lines = head[:-4].split(b"\r\n")
    if any(_CONTROL.search(line) or b"\r" in line for line in lines):
        raise Refusal(400, "The head of the request has a bare line end or a control character.", closes=True)
    if any(line[:1] in {b" ", b"\t"} for line in lines):
        raise Refusal(400, "The head of the request has a folded or empty line.", closes=True)
    names = [line.split(b":", 1)[0].lower() for line in lines[1:]]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Refusal(400, f"The request has two {name.decode()} headers.", closes=True)
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refusal(400, "The request has both a content-length and a transfer-encoding.", closes=True)
    if b"upgrade" in names:
        raise Refusal(400, "The gate does not change protocols.", closes=True)
    if b"content-length" in names:
        _check_length(lines[1 + names.index(b"content-length")].partition(b":")[2].strip(b" \t"))


def _check_length(value: bytes) -> None:
    if not _LENGTH.fullmatch(value):
        raise Refusal(400, "The content-length of the request is not a number.", closes=True)


def _check_request(request: h11.Request) -> tuple[str, str, str]:
    """Method, path and query; raises Refusal."""
    method, target = request.method.decode("ascii"), request.target.decode("latin-1")
    if request.http_version != b"1.1":
        raise Refusal(505, "The gate speaks HTTP/1.1 only.", closes=True)
    if method not in METHODS:
        raise Refusal(405, "The gate does not know this method.", closes=True)
    if not _TARGET.fullmatch(target) or "#" in target:
        raise Refusal(400, "The target of the request must be a path.", closes=True)
    path, _, query = target.partition("?")
    return method, path, query


def _header(request: h11.Request, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in request.headers if name == wanted), None)


def _pieces(body: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    with body:
        while piece := body.read(_PIECE):
            yield piece
