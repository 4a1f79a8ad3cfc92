"""A small TCP proxy before an HTTP server that does harm, one request at a time.

It knows as much of HTTP as it needs to tell requests from each other: one request a connection, and lengths. ``notice``
hears, while the bytes are held, how far a request has come; ``pick`` says at each of these moments what is done to it.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

_HEAD = 64 * 1024
_PIECE = 64 * 1024
_BUFFERED = 8 << 20
_IDLE_SECONDS = 90.0
_DELAY, _ANOTHER = 0.3, 0.5
_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_JSON = b'{"msg": "planted"}'
_RUN = re.compile(r"/run/(\d+)/(finish|result)\b")


class Harm(StrEnum):
    """What can be done to a request."""

    RESET = "reset"
    """The connection is reset before the server hears of it."""
    DELAY = "delay"
    CUT_REQUEST = "cut request"
    """The server gets the first half of the request only."""
    CUT_ANSWER = "cut answer"
    """The client gets the first half of the answer only."""
    LOSE_ANSWER = "lose answer"
    """The server does it; the client is reset."""
    REPLAY = "replay"
    """The server gets it twice, the client the second answer."""
    REORDER = "reorder"
    """It is held until another one has passed."""
    STATUS_502 = "502"
    STATUS_503 = "503"
    STATUS_429 = "429"
    HTML = "html"
    """502 with a page of HTML, as a load balancer sends it."""


_STATUS: dict[Harm | None, int] = {
    Harm.STATUS_502: 502,
    Harm.STATUS_503: 503,
    Harm.STATUS_429: 429,
    Harm.HTML: 502,
}
_CUTS: dict[str, set[Harm | None]] = {
    "head": {Harm.RESET},
    "half": {Harm.RESET, Harm.CUT_REQUEST},
    "answered": {Harm.RESET, Harm.LOSE_ANSWER},
}
"""What ends a request at its moments: nothing forwarded, half of its body, answered but not handed back."""


@dataclass(frozen=True, slots=True)
class Request:
    """``run``: which one it delivers, where it does."""

    method: str
    path: str
    length: int
    run: int | None
    ends: bool


@dataclass
class FaultProxy:
    """``cut_towards``: "server" lets no request through, "client" no answer, until it is None again.

    ``upstream``: the port of the server, or of the load balancer before it.
    """

    upstream: int
    pick: Callable[[Request], Harm | None] = lambda _: None
    notice: Callable[[str, Request], None] = lambda *_: None
    watch: Callable[[bytes], None] = lambda _: None
    cut_towards: str | None = None
    _listener: socket.socket = field(init=False)
    _passed: threading.Condition = field(default_factory=threading.Condition)
    _count: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        threading.Thread(target=self._listen, name="fault proxy", daemon=True).start()

    def close(self) -> None:
        self.cut_towards = None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_IDLE_SECONDS)
            with contextlib.suppress(OSError, ValueError):
                head, rest = _read_head(client)
                if head:
                    self._pass(client, head, rest)

    def _pass(self, client: socket.socket, head: bytes, rest: bytes) -> None:
        request = _parse(head)
        body = _Body(_body(client, request, rest))
        if self._comes_to("head", client, request, body):
            self._forward(client, request, _close_after(head), body)
        with self._passed:
            self._count += 1
            self._passed.notify_all()

    def _comes_to(self, moment: str, client: socket.socket, request: Request, body: _Body) -> bool:
        """Whether the request, or its answer, goes on from there; else its client has heard all that it will."""
        self._tell(moment, request)
        harm = self.pick(request)
        self._await_way("client" if moment == "answered" else "server")
        if harm is Harm.DELAY:
            time.sleep(_DELAY)
        elif harm is Harm.REORDER:
            self._let_another_pass()
        elif harm in _STATUS:
            body.read()
            client.sendall(_refusal(_STATUS[harm], html=harm is Harm.HTML))
        elif harm in _CUTS[moment]:
            _reset(client)
        return harm not in _STATUS and harm not in _CUTS[moment]

    def _forward(self, client: socket.socket, request: Request, head: bytes, body: _Body) -> None:
        with self._connect() as server:
            if not self._send(server, client, request, head, body):
                return
            answer = _read_all(server, client)
        self.watch(answer)
        if not self._comes_to("answered", client, request, body):
            return
        if self.pick(request) is Harm.REPLAY:
            with self._connect() as server:
                server.sendall(head + body.read())
                answer = _read_all(server, client)
        self._hand_back(client, answer, cut=self.pick(request) is Harm.CUT_ANSWER)

    def _send(self, server: socket.socket, client: socket.socket, request: Request, head: bytes, body: _Body) -> bool:
        """False when it did not come farther than its half."""
        server.sendall(head)
        half, sent, told = request.length // 2, 0, False
        for piece in body:
            server.sendall(piece[: max(half - sent, 0)])
            rest, sent = piece[max(half - sent, 0) :], sent + len(piece)
            if not told and sent >= half:
                told = True
                if not self._comes_to("half", client, request, body):
                    return False
            server.sendall(rest)
        return True

    def _hand_back(self, client: socket.socket, answer: bytes, *, cut: bool) -> None:
        client.sendall(answer[: len(answer) // 2] if cut else answer)
        if cut or not answer:
            _reset(client)

    def _tell(self, moment: str, request: Request) -> None:
        if request.run is not None:
            self.notice(moment, request)

    def _await_way(self, towards: str) -> None:
        end = time.monotonic() + _IDLE_SECONDS
        while self.cut_towards == towards and time.monotonic() < end:
            time.sleep(0.02)

    def _let_another_pass(self) -> None:
        with self._passed:
            count = self._count
            self._passed.wait_for(lambda: self._count > count, timeout=_ANOTHER)

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.upstream), timeout=_IDLE_SECONDS)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request and what came with it of its body; nothing when there is none."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = client.recv(_PIECE)
        if not piece or len(got) > _HEAD:
            return b"", b""
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _parse(head: bytes) -> Request:
    method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head)
    found = _RUN.search(path) if method in {"POST", "PUT"} else None
    size = -1 if chunked else int(length[1]) if length else 0
    return Request(method, path, size, int(found[1]) if found else None, found is not None and found[2] == "finish")


def _close_after(head: bytes) -> bytes:
    """The same, and nothing after it on that connection."""
    kept = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


class _Body:
    """The pieces of a request's body, kept as they come: what is answered unread takes its answer back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._kept = bytearray()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._kept += piece
            yield piece

    def read(self) -> bytes:
        """All of it, whoever has read how much of it."""
        for _ in self:
            pass
        return bytes(self._kept)


def _body(client: socket.socket, request: Request, rest: bytes) -> Iterator[bytes]:
    """Of a chunked body the chunks as they are."""
    if request.length < 0:
        while True:
            yield rest
            if rest.endswith(b"0\r\n\r\n"):
                return
            rest = client.recv(_PIECE)
            if not rest:
                raise ConnectionResetError
    left = request.length - len(rest)
    yield rest
    while left > 0:
        piece = client.recv(min(_PIECE, left))
        if not piece:
            raise ConnectionResetError
        left -= len(piece)
        yield piece


def _read_all(server: socket.socket, client: socket.socket) -> bytes:
    """All that the server says; given up when the client does."""
    got = bytearray()
    while len(got) < _BUFFERED * 8:
        ready, _, _ = select.select([server, client], [], [], _IDLE_SECONDS)
        if not ready:
            raise TimeoutError
        if server in ready:
            piece = server.recv(_PIECE)
            if not piece:
                return bytes(got)
            got += piece
        elif not client.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError
        else:
            # Pipelined bytes: nobody of ours sends any.
            raise ValueError
    return bytes(got)


def _refusal(status: int, *, html: bool) -> bytes:
    kind, body = (b"text/html", _HTML) if html else (b"application/json", _JSON)
    head = b"HTTP/1.1 %d Planted\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, kind, len(body)) + body


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
