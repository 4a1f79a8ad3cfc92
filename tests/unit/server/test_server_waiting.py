"""The hub and the waiting room, with an app of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from skerry_server.events import Hub
from skerry_server.waiting import RECORDED, TICKET_HEADER, WAIT_HEADER, WaitingRoom

pytestmark = pytest.mark.unit


class Asker:
    """One connection: its request, what it was answered, and a way to hang up."""

    def __init__(self, body: bytes = b"{}", headers: dict[str, str] | None = None, query: bytes = b"") -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": query,
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self._body = [body[i : i + 65536] for i in range(0, len(body), 65536)] or [b""]

    async def receive(self) -> dict[str, Any]:
        if self._body:
            piece = self._body.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._body)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Handlers:
    """Answers with the news of the topic, or with a "nothing" that may be held back."""

    def __init__(self, hub: Hub, seconds: float = 30) -> None:
        self.hub = hub
        self.seconds = seconds
        self.news: str | None = None
        self.asked: list[bytes] = []
        self.before_answer: Callable[[], None] = lambda: None

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        ticket = self.hub.ticket(["topic"])
        self.asked.append((await receive())["body"])
        news = self.news
        self.before_answer()
        headers = {"content-type": "text/plain"}
        if news is None:
            headers |= {WAIT_HEADER: str(self.seconds), TICKET_HEADER: f'{{"topic": {ticket.counters["topic"]}}}'}
        await send({"type": "http.response.start", "status": 200, "headers": _encoded(headers)})
        await send({"type": "http.response.body", "body": (news or "nothing").encode()})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def until(condition: Callable[[], bool]) -> None:
    """Lets the other tasks go on until it holds."""
    while not condition():  # noqa: ASYNC110 - no time passes
        await asyncio.sleep(0)


def test_an_answer_passes_at_once() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)
        handlers.news, asker = "news", Asker(b"question")
        await WaitingRoom(handlers, hub, 10)(asker.scope, asker.receive, asker.send)
        assert asker.answer == b"news"
        assert handlers.asked == [b"question"]

    run(test())


@pytest.mark.parametrize("size", [RECORDED // 2, RECORDED * 2])
def test_a_body_that_still_comes_when_the_server_stops_is_put_off(size: int) -> None:
    """However much of it was read before: the server ends what takes longer than it has."""

    async def test() -> None:
        asker = Sender(b"x" * size)
        asked = asyncio.create_task(WaitingRoom(read_all, Hub(), 10)(asker.scope, asker.receive, asker.send))
        await until(lambda: not asker._body)
        await asyncio.sleep(0)
        asked.cancel()
        await asked
        assert [message.get("status") for message in asker.sent] == [503, None]
        assert b"again" in asker.answer

    run(test())


def test_an_answer_that_has_begun_is_broken_off_when_the_server_stops() -> None:
    async def test() -> None:
        begun, asker = asyncio.Event(), Asker()

        async def begins(_scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            begun.set()
            await asyncio.Event().wait()

        asked = asyncio.create_task(WaitingRoom(begins, Hub(), 10)(asker.scope, asker.receive, asker.send))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert len(asker.sent) == 1

    run(test())


class Sender(Asker):
    """Its body goes on, and nothing more of it comes."""

    async def receive(self) -> dict[str, Any]:
        return {**await super().receive(), "more_body": True}


async def read_all(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive())["more_body"]:
        pass


def test_a_change_asks_again_with_the_same_body() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)
        asker = Asker(b"question")
        waiting = asyncio.create_task(WaitingRoom(handlers, hub, 10)(asker.scope, asker.receive, asker.send))
        await until(lambda: bool(hub._sleepers))
        handlers.news = "news"
        hub.publish(["another topic"])
        await asyncio.sleep(0)
        assert not waiting.done()
        threading.Thread(target=hub.publish, args=(["topic"],)).start()
        await waiting
        assert asker.answer == b"news"
        assert handlers.asked == [b"question", b"question"]
        assert not hub._sleepers

    run(test())


def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)

        def change() -> None:
            handlers.before_answer = lambda: None
            handlers.news = "news"
            hub.publish(["topic"])

        handlers.before_answer = change
        asker = Asker()
        await WaitingRoom(handlers, hub, 10)(asker.scope, asker.receive, asker.send)
        assert asker.answer == b"news"

    run(test())


def test_when_the_time_is_up_the_answer_is_the_one_held_back() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub, seconds=0.05)
        asker = Asker()
        await WaitingRoom(handlers, hub, 10)(asker.scope, asker.receive, asker.send)
        assert asker.answer == b"nothing"
        assert len(handlers.asked) == 1
        assert asker.sent[0]["headers"] == [(b"content-type", b"text/plain")]

    run(test())


def test_who_hangs_up_is_forgotten_at_once() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)
        asker = Asker()
        room = WaitingRoom(handlers, hub, 1)
        waiting = asyncio.create_task(room(asker.scope, asker.receive, asker.send))
        await until(lambda: bool(hub._sleepers))
        asker.gone.set()
        await waiting
        assert not hub._sleepers
        assert asker.sent == []
        assert len(handlers.asked) == 1
        assert room._places == 1

    run(test())


def test_closing_wakes_everybody_and_nobody_waits_any_more() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)
        askers = [Asker() for _ in range(5)]
        room = WaitingRoom(handlers, hub, 10)
        waiting = [asyncio.create_task(room(a.scope, a.receive, a.send)) for a in askers]
        await until(lambda: len(hub._sleepers["topic"]) == 5)
        hub.close()
        await asyncio.gather(*waiting)
        late = Asker()
        await room(late.scope, late.receive, late.send)
        assert {a.answer for a in [*askers, late]} == {b"nothing"}

    run(test())


def test_there_is_room_for_so_many() -> None:
    async def test() -> None:
        hub = Hub()
        room = WaitingRoom(Handlers(hub), hub, 1)
        first, second = Asker(), Asker()
        waiting = asyncio.create_task(room(first.scope, first.receive, first.send))
        await until(lambda: bool(hub._sleepers))
        await room(second.scope, second.receive, second.send)
        assert second.answer == b"nothing"
        assert not waiting.done()
        hub.close()
        await waiting

    run(test())


def test_a_large_body_is_handed_on_as_it_comes() -> None:
    async def test() -> None:
        hub, read = Hub(), bytearray()

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            more = True
            while more:
                message = await receive()
                assert len(message["body"]) <= RECORDED + 65536
                read.extend(message["body"])
                more = message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})

        body = bytes(range(256)) * 20_000
        asker = Asker(body)
        await WaitingRoom(app, hub, 10)(asker.scope, asker.receive, asker.send)
        assert read == body

    run(test())


def test_an_address_that_is_not_ascii_is_refused() -> None:
    async def test() -> None:
        hub = Hub()
        handlers = Handlers(hub)
        asker = Asker(query=b"name=\xff")
        await WaitingRoom(handlers, hub, 10)(asker.scope, asker.receive, asker.send)
        assert asker.sent[0]["status"] == 400
        assert handlers.asked == []

    run(test())
