"""A small TCP proxy before an HTTP server that does harm, one request at a time.

It knows as much of HTTP as it needs to tell requests from each other: one request a connection, and lengths. ``pick``
says what is done to a request; ``notice`` hears, while the bytes are held, how far one has come.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_HEAD = 64 * 1024
_PIECE = 64 * 1024
_BUFFERED = 8 << 20
_IDLE_SECONDS = 90.0
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


_STATUS = {Harm.STATUS_502: 502, Harm.STATUS_503: 503, Harm.STATUS_429: 429, Harm.HTML: 502}
DELIVERING = ("head", "half", "answered")
"""The moments of a request that ends a run: nothing forwarded, half of its body, and answered but not handed back."""


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

    ``upstream``: the ports of the server's processes, which take turns; a request that one does not take goes to the
    next, as a load balancer sends it.
    """

    upstream: Sequence[int]
    pick: Callable[[Request], Harm | None] = lambda _: None
    notice: Callable[[str, Request], None] = lambda *_: None
    watch: Callable[[bytes], None] = lambda _: None
    cut_towards: str | None = None
    _listener: socket.socket = field(init=False)
    _passed: threading.Condition = field(default_factory=threading.Condition)
    _count: int = 0
    _turns: Iterator[int] = field(default_factory=itertools.count)

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
        harm = self.pick(request)
        self._tell("head", request)
        self._await_way("server")
        if harm in _STATUS:
            _refuse(client, request, rest, _STATUS[harm], html=harm is Harm.HTML)
        elif harm is Harm.RESET:
            _reset(client)
        else:
            self._forward(client, request, _close_after(head), rest, harm)
        with self._passed:
            self._count += 1
            self._passed.notify_all()

    def _forward(self, client: socket.socket, request: Request, head: bytes, rest: bytes, harm: Harm | None) -> None:
        if harm is Harm.DELAY:
            time.sleep(0.3)
        elif harm is Harm.REORDER:
            self._let_another_pass()
        body = _body(client, request, rest)
        if harm is Harm.REPLAY:
            whole = b"".join(body)
            with self._connect() as first:
                first.sendall(head + whole)
                _read_all(first, client)
            body = iter([whole])
        with self._connect() as server:
            if not self._send(server, request, head, body, cut=harm is Harm.CUT_REQUEST):
                _reset(client)
                return
            self._answer(client, server, request, harm)

    def _send(self, server: socket.socket, request: Request, head: bytes, body: Iterator[bytes], *, cut: bool) -> bool:
        """False when it was cut."""
        server.sendall(head)
        sent, told = 0, False
        for piece in body:
            first, second = piece[: max(request.length // 2 - sent, 0)], piece[max(request.length // 2 - sent, 0) :]
            server.sendall(first)
            sent += len(piece)
            if not told and sent >= request.length // 2:
                told = True
                self._tell("half", request)
                if cut:
                    return False
            server.sendall(second)
        return not cut

    def _answer(self, client: socket.socket, server: socket.socket, request: Request, harm: Harm | None) -> None:
        answer = _read_all(server, client)
        self.watch(answer)
        self._tell("answered", request)
        self._await_way("client")
        if harm is Harm.LOSE_ANSWER or not answer:
            _reset(client)
        elif harm is Harm.CUT_ANSWER:
            client.sendall(answer[: len(answer) // 2])
            _reset(client)
        else:
            client.sendall(answer)

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
            self._passed.wait_for(lambda: self._count > count, timeout=1.0)

    def _connect(self) -> socket.socket:
        turn = next(self._turns)
        ports = [self.upstream[(turn + more) % len(self.upstream)] for more in range(len(self.upstream))]
        for port in ports[:-1]:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port), timeout=_IDLE_SECONDS)
        return socket.create_connection(("127.0.0.1", ports[-1]), timeout=_IDLE_SECONDS)


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


def _refuse(client: socket.socket, request: Request, rest: bytes, status: int, *, html: bool) -> None:
    """Reads the whole request first: what is closed with something unread takes its answer back."""
    for _ in _body(client, request, rest):
        pass
    kind, body = (b"text/html", _HTML) if html else (b"application/json", _JSON)
    head = b"HTTP/1.1 %d Planted\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    client.sendall(head % (status, kind, len(body)) + body)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
