"""The waiting room: requests that have nothing to be told yet wait here as coroutines.

A handler that has nothing new to say answers so, with two internal headers: how long that may be held back, and
a ticket that it took *before* it looked at the database. The room lets the thread and the connection go and waits.
When a topic of the ticket counted on, it asks the handler again with the recorded request; when the time is up, or the
server stops, it passes on the answer that it held back. The two headers never leave this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from skerry_server.events import Hub, Ticket

WAIT_HEADER = "x-skerry-wait"
TICKET_HEADER = "x-skerry-ticket"
LONGEST = 60.0
_PIECE_SECONDS = 60.0
_NOT_ASCII = "The address of the request must be ASCII, other characters percent-encoded."
_STOPS = "The server was stopped before it had the whole request: send it again in a few seconds."
_INTERNAL = {WAIT_HEADER, TICKET_HEADER}
RECORDED = (1 << 20) + 1
"""Bodies of less are read before a thread is taken, and can be replayed. So much is more than what a caller without a
token may send: nobody unknown makes a thread wait for the rest.
"""

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
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not bytes(scope["query_string"]).isascii():
            await say(send, 400, {"msg": _NOT_ASCII})
            return
        visit, answer = _Visit(scope, receive), _Answer(send)
        try:
            await visit.read()
            await self._serve(visit, answer)
        except ClientGone:
            return
        except asyncio.CancelledError:
            # The server stops, and this takes longer than it waits for.
            if answer.begun or visit.complete:
                raise
            await say(send, 503, {"msg": _STOPS}, retry_after="2")

    async def _serve(self, visit: _Visit, send: Send) -> None:
        answer = await visit.ask(self._app, send)
        deadline = time.monotonic() + (min(answer.seconds, LONGEST) if answer else 0)
        while answer is not None and await self._changes(visit, answer.ticket, deadline):
            answer = await visit.ask(self._app, send)
        for message in answer.messages if answer is not None else ():
            await send(message)

    async def _changes(self, visit: _Visit, ticket: Ticket, deadline: float) -> bool:
        """Waits; true when something changed in time. Raises ClientGone as soon as the caller hangs up."""
        if self._hub.closed or self._places <= 0:
            return False
        self._places -= 1
        self.waiting += 1
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
            self.waiting -= 1
            forget()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


@dataclass(frozen=True, slots=True)
class _HeldBack:
    """An answer that says nothing new: for how long it may be held back, and what would make it another."""

    ticket: Ticket
    seconds: float
    messages: list[Message]


@dataclass(slots=True)
class _Visit:
    """One request: its recorded body, and the connection behind it."""

    scope: Scope
    receive: Receive
    body: bytes = b""
    complete: bool = False
    gone: bool = False

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

    async def ask(self, app: App, send: Send) -> _HeldBack | None:
        """Lets the app answer: sends that on, and gives None, or holds it back."""
        filter_ = _AnswerFilter(send)
        await app(self.scope, self._replay(), filter_)
        return filter_.held

    def _replay(self) -> Receive:
        recorded = False

        async def receive() -> Message:
            nonlocal recorded
            if not recorded:
                recorded = True
                return {"type": "http.request", "body": self.body, "more_body": not self.complete}
            return {"type": "http.request", "body": await self._gather(), "more_body": not self.complete}

        return receive

    async def _gather(self) -> bytes:
        """As much as a thread takes at once: each way to it and back costs more than many small pieces do.

        Of what breaks off, all that came is handed on first.
        """
        parts, size = [], 0
        while not (self.complete or self.gone) and size < RECORDED:
            try:
                parts.append((await self._next()).get("body", b""))
            except ClientGone:
                self.gone = True
            else:
                size += len(parts[-1])
        if self.gone and not parts:
            raise ClientGone
        return b"".join(parts)

    async def _next(self) -> Message:
        """The next piece of the request; one that takes too long to come would hold a thread, so its sender is gone."""
        try:
            async with asyncio.timeout(_PIECE_SECONDS):
                message = await self.receive()
        except TimeoutError as error:
            raise ClientGone from error
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.complete = not message.get("more_body", False)
        return message


@dataclass(slots=True)
class _Answer:
    """What is sent to the caller, and whether any of it was."""

    send: Send
    begun: bool = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self.send(message)


@dataclass(slots=True)
class _AnswerFilter:
    """Passes an answer on, unless its headers say that it may be held back."""

    send: Send
    held: _HeldBack | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.held = _held_back(message)
        if self.held is None:
            await self.send(message)
        else:
            self.held.messages.append(message)


def _held_back(start: Message) -> _HeldBack | None:
    """Takes the internal headers out."""
    internal = {
        name.decode(): value.decode() for name, value in start["headers"] if name.decode("latin-1") in _INTERNAL
    }
    if not internal:
        return None
    start["headers"] = [(name, value) for name, value in start["headers"] if name.decode("latin-1") not in _INTERNAL]
    return _HeldBack(Ticket(json.loads(internal[TICKET_HEADER])), float(internal[WAIT_HEADER]), [])


async def say(send: Send, status: int, said: Mapping[str, Any], **more: str) -> None:
    """A whole answer in JSON, from the event loop."""
    body = json.dumps(said).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    headers["x-content-type-options"] = "nosniff"
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
