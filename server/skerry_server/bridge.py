"""From the event loop to the doors' threads and back: each request takes one way there and, as a rule, one back.

The Flask application runs in bounded pools of threads. A body that was read already, and an answer in one piece, are
handed over whole: each other way between thread and loop costs both a turn at the interpreter. While a piece of an
answer is on its way to the caller, no thread waits for it; one that waits for the rest of a body is none of the doors'.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from skerry_server.turnstile import Turnstile
from skerry_server.waiting import Message, Receive, Scope, Send, say

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]
_PLAIN = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_MANY = "The server takes as many uploads as it can already: try again in a few seconds."


class Bridge:
    """An ASGI application made of a WSGI one; ``threads`` requests are worked on at the same time.

    Beside them are up to ``uploads`` whose bodies are still coming; more are told to come again. ``at_once`` of all
    these go on without a pause, see ``turnstile``.
    """

    def __init__(self, app: Wsgi, threads: int, uploads: int, at_once: int) -> None:
        self._app = app
        self._turnstile = Turnstile(at_once)
        self._doors = ThreadPoolExecutor(threads, "door")
        self._uploads = ThreadPoolExecutor(uploads, "upload")
        self._places = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        first = await receive()
        if first.get("more_body", False):
            with contextlib.closing(Stream(first, receive, asyncio.get_running_loop())) as body:
                await self._take_in(scope, body, send)
        else:
            await self._answer(self._doors, _environ(scope, io.BytesIO(first.get("body", b""))), send)

    async def _take_in(self, scope: Scope, body: Stream, send: Send) -> None:
        if self._places <= 0:
            await say(send, 503, {"msg": _MANY}, retry_after="2")
            return
        self._places -= 1
        try:
            await self._answer(self._uploads, _environ(scope, body), send)
        finally:
            self._places += 1

    async def _answer(self, pool: ThreadPoolExecutor, environ: dict[str, Any], send: Send) -> None:
        loop, answer = asyncio.get_running_loop(), _Answer(self._app, environ)
        try:
            while not answer.over:
                with await self._turnstile.enter():
                    messages = await loop.run_in_executor(pool, answer.go_on)
                for message in messages:
                    await send(message)
        finally:
            if not answer.over:
                await loop.run_in_executor(pool, answer.close)


class _Answer:
    """What the application says, in whichever thread asks it, one at a time."""

    def __init__(self, app: Wsgi, environ: dict[str, Any]) -> None:
        self._app = app
        self._environ = environ
        self._context = contextvars.copy_context()
        self._turn = threading.Lock()
        self._pieces: Iterable[bytes] = ()
        self._left: Iterator[bytes] | None = None
        self._held: list[Message] = []
        self.over = False

    def go_on(self) -> list[Message]:
        """All up to a piece that has another one behind it, or up to the end."""
        with self._turn:
            return self._context.run(self._take)

    def close(self) -> None:
        """The rest is not wanted, or can't be had."""
        with self._turn:
            self._context.run(self._end)

    def _take(self) -> list[Message]:
        if self._left is None:
            self._pieces = self._app(self._environ, self._start)
            self._left = iter(self._pieces)
        for piece in self._left:
            found, body = self._held, {"type": "http.response.body", "body": piece, "more_body": True}
            if found and found[-1]["type"] == "http.response.body":
                self._held = [body]
                return found
            found.append(body)
        self._end()
        if self._held[-1]["type"] == "http.response.start":
            self._held.append({"type": "http.response.body", "body": b""})
        return [*self._held[:-1], {**self._held[-1], "more_body": False}]

    def _end(self) -> None:
        self.over = True
        getattr(self._pieces, "close", _nothing)()

    def _start(self, status: str, headers: Iterable[tuple[str, str]], _error: object = None) -> None:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._held = [{"type": "http.response.start", "status": int(status[:3]), "headers": raw}]


def _nothing() -> None:
    """There is nothing to close."""


class Stream:
    """A body that is still coming, as far as the doors read one."""

    def __init__(self, first: Message, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._pieces = self._come(first)
        self._coming: Future[Message] | None = None
        self._have = bytearray()

    def pieces(self) -> Iterator[bytes]:
        """What is left as it comes: while one piece is in use, the next is waited for."""
        if self._have:
            yield self.read(len(self._have))
        yield from self._pieces

    def read(self, size: int = -1) -> bytes:
        """As WSGI has it."""
        while size < 0 or len(self._have) < size:
            come = next(self._pieces, None)
            if come is None:
                if self._coming is not None:
                    self._coming.result()  # who hung up did so for whoever reads on, too
                break
            self._have += come
        piece = bytes(self._have if size < 0 else self._have[:size])
        del self._have[: len(piece)]
        return piece

    def close(self) -> None:
        """What has not come yet is not wanted."""
        if self._coming is not None:
            self._coming.cancel()

    def _come(self, message: Message) -> Iterator[bytes]:
        while message.get("more_body", False):
            self._coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            yield message.get("body", b"")
            message = self._coming.result()
        yield message.get("body", b"")

    async def _next(self) -> Message:
        return await self._receive()


def _environ(scope: Scope, body: Any) -> dict[str, Any]:
    """PEP 3333's, of an ASGI scope."""
    host, port = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("client") is not None:
        address, port = scope["client"]
        environ |= {"REMOTE_ADDR": address, "REMOTE_PORT": str(port)}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name:
            continue  # to WSGI it is the same as "-": X_Forwarded_For would pass for what only a proxy may say
        key = _PLAIN.get(name) or f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
