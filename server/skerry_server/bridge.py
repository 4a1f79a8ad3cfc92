"""From the event loop to the doors' threads and back: each request takes one way there and, as a rule, one back.

The Flask application runs in a bounded pool of threads. A body that was read already, and an answer in one piece, are
handed over whole: each other way between thread and loop costs both a turn at the interpreter.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import sys
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from skerry_server.waiting import Message, Receive, Scope, Send

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]
_Found = TypeVar("_Found")
_Await = Callable[[Coroutine[Any, Any, _Found]], _Found]
_PLAIN = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


class Bridge:
    """An ASGI application made of a WSGI one; ``threads`` requests are worked on at the same time."""

    def __init__(self, app: Wsgi, threads: int) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(threads, "door")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        loop = asyncio.get_running_loop()

        def on_the_loop(work: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        environ = _environ(scope, _body(await receive(), receive, on_the_loop))
        answer = _Answer(lambda messages: on_the_loop(_send_all(messages, send)))
        work = functools.partial(contextvars.copy_context().run, answer.take, self._app, environ)
        await _send_all(await loop.run_in_executor(self._threads, work), send)


async def _send_all(messages: Iterable[Message], send: Send) -> None:
    for message in messages:
        await send(message)


class _Answer:
    """What the application says, in its thread."""

    def __init__(self, pass_on: Callable[[list[Message]], None]) -> None:
        self._pass_on = pass_on
        self._held: list[Message] = []

    def take(self, app: Wsgi, environ: dict[str, Any]) -> list[Message]:
        """The whole answer, or the end of one whose other pieces were passed on as they came."""
        pieces = app(environ, self._start)
        try:
            for piece in pieces:
                if self._held and self._held[-1]["type"] == "http.response.body":
                    self._pass_on(self._held)
                    self._held = []
                self._held.append({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            getattr(pieces, "close", _nothing)()
        if self._held[-1]["type"] == "http.response.start":
            self._held.append({"type": "http.response.body", "body": b""})
        return [*self._held[:-1], {**self._held[-1], "more_body": False}]

    def _start(self, status: str, headers: Iterable[tuple[str, str]], _error: object = None) -> None:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._held = [{"type": "http.response.start", "status": int(status[:3]), "headers": raw}]


def _nothing() -> None:
    """There is nothing to close."""


def _body(first: Message, receive: Receive, on_the_loop: _Await[Message]) -> Any:
    if not first.get("more_body", False):
        return io.BytesIO(first.get("body", b""))
    return _Stream(first, receive, on_the_loop)


class _Stream:
    """A body that is still coming, as far as the doors read one."""

    def __init__(self, first: Message, receive: Receive, on_the_loop: _Await[Message]) -> None:
        self._receive = receive
        self._on_the_loop = on_the_loop
        self._have = bytearray(first["body"])
        self._more = True

    def read(self, size: int = -1) -> bytes:
        while self._more and (size < 0 or len(self._have) < size):
            message = self._on_the_loop(self._next())
            self._have += message.get("body", b"")
            self._more = message.get("more_body", False)
        piece = bytes(self._have if size < 0 else self._have[:size])
        del self._have[: len(piece)]
        return piece

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
