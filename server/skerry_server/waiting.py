"""The waiting room: requests that have nothing to be told yet wait here as coroutines.

A handler that has nothing to say answers 204 with two internal headers: how long to wait, and a ticket that it took
*before* it looked at the database. The room lets the thread and the connection go, waits until a topic of the ticket
counted on or the time is up, and asks the handler again with the recorded request; the last time with a mark, so that
it gives its "nothing new". The two headers never leave this process, and the mark never comes from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from skerry_server.events import Hub, Ticket

WAIT_HEADER = "x-skerry-wait"
TICKET_HEADER = "x-skerry-ticket"
WAITED_HEADER = "x-skerry-waited"
AGAIN, LAST = "again", "last"
LONGEST = 60.0
RECORDED = 1 << 20
"""Bodies up to this size are read before a thread is taken, and can be replayed."""

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGone(ConnectionError):
    """The caller hung up in the middle of its request."""


class WaitingRoom:
    """ASGI middleware around the app whose handlers may ask to wait."""

    def __init__(self, app: App, hub: Hub, limit: int) -> None:
        self._app = app
        self._hub = hub
        self._places = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not bytes(scope["query_string"]).isascii():
            await _refuse(send)
            return
        visit = _Visit(_without_marks(scope), receive)
        try:
            await visit.read()
            await self._serve(visit, send)
        except ClientGone:
            return

    async def _serve(self, visit: _Visit, send: Send) -> None:
        wish = await visit.ask(self._app, send)
        deadline = time.monotonic() + (min(wish.seconds, LONGEST) if wish else 0)
        while wish is not None:
            in_time = await self._wait(visit, wish.ticket, deadline)
            wish = await visit.ask(self._app, send, AGAIN if in_time else LAST)

    async def _wait(self, visit: _Visit, ticket: Ticket, deadline: float) -> bool:
        """True when something changed in time. Raises ClientGone as soon as the caller hangs up."""
        if self._hub.closed or self._places <= 0:
            return False
        self._places -= 1
        sleeper, forget = self._hub.sleep(ticket)
        gone = asyncio.ensure_future(visit.hung_up())
        try:
            await asyncio.wait(
                {sleeper, gone}, timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                raise ClientGone
            return sleeper.done() and not self._hub.closed and time.monotonic() < deadline
        finally:
            self._places += 1
            forget()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


@dataclass(frozen=True, slots=True)
class _Wish:
    """A handler's wish to be asked again."""

    ticket: Ticket
    seconds: float


@dataclass(slots=True)
class _Visit:
    """One request: its recorded body, and the connection behind it."""

    scope: Scope
    receive: Receive
    body: bytes = b""
    complete: bool = False

    async def read(self) -> None:
        """Records the body, as far as it is small."""
        parts, size = [], 0
        while not self.complete and size < RECORDED:
            message = await self._next()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        self.body = b"".join(parts)

    async def hung_up(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def ask(self, app: App, send: Send, mark: str | None = None) -> _Wish | None:
        """Lets the app answer; None when it did, else its wish to wait (only for a request that can be replayed)."""
        scope = self.scope
        if mark is not None:
            scope = {**scope, "headers": [*scope["headers"], (WAITED_HEADER.encode(), mark.encode())]}
        filter_ = _AnswerFilter(send)
        await app(scope, self._replay(), filter_)
        return filter_.wish

    def _replay(self) -> Receive:
        recorded = False

        async def receive() -> Message:
            nonlocal recorded
            if not recorded:
                recorded = True
                return {"type": "http.request", "body": self.body, "more_body": not self.complete}
            return await self._next()

        return receive

    async def _next(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.complete = not message.get("more_body", False)
        return message


@dataclass(slots=True)
class _AnswerFilter:
    """Passes an answer on, unless it is a wish to wait."""

    send: Send
    wish: _Wish | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.wish = _wish(message)
        if self.wish is None:
            await self.send(message)


def _wish(start: Message) -> _Wish | None:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    if WAIT_HEADER not in headers:
        return None
    return _Wish(Ticket(json.loads(headers[TICKET_HEADER])), float(headers[WAIT_HEADER]))


def _without_marks(scope: Scope) -> Scope:
    mark = WAITED_HEADER.encode()
    alike = {mark, mark.replace(b"-", b"_")}
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name.lower() not in alike]}


async def _refuse(send: Send) -> None:
    body = b'{"msg": "The address of the request must be ASCII, other characters percent-encoded."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
