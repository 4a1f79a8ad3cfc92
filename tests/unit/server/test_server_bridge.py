"""The way between the event loop and the doors' threads, with a WSGI application of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from skerry_server.bridge import Bridge
from skerry_server.waiting import ClientGone

pytestmark = pytest.mark.unit

_Answer = Callable[[dict[str, Any]], Iterable[bytes]]
SCOPE = {
    "type": "http",
    "method": "PUT",
    "path": "/åre",
    "query_string": b"a=1",
    "http_version": "1.1",
    "headers": [
        (b"x-one", b"1"),
        (b"x_one", b"0"),
        (b"x-one", b"2"),
        (b"content-length", b"7"),
        (b"content-type", b"text/plain"),
    ],
    "client": ("10.0.0.1", 7),
}


def ask(answer: _Answer, *bodies: bytes, broken: bool = False) -> list[dict[str, Any]]:
    """What is sent to a caller who sends these pieces, and hangs up in their midst if ``broken``."""
    left, sent = list(bodies), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        if not left and broken:
            raise ClientGone
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or broken}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("201 CREATED", [("X-Two", "2")])
        return answer(environ)

    asyncio.run(Bridge(app, 1, 1, 1)(dict(SCOPE), receive, send))
    return sent


def body(messages: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


class Pieces:
    """An answer of five; it knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"%d" % number for number in range(5))

    def close(self) -> None:
        self.closed = True


class Slow:
    """A caller whose request or answer stands still from ``waits`` on until ``goes_on``."""

    def __init__(self, *, sends: bool) -> None:
        self.waits, self.goes_on = asyncio.Event(), asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self._sends, self._asked = sends, False

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            await self._wait()
        more, self._asked = self._sends and not self._asked, True
        return {"type": "http.request", "body": b"piece", "more_body": more}

    async def send(self, message: Any) -> None:
        if not self._sends and message["type"] == "http.response.body":
            await self._wait()
        self.sent.append(dict(message))

    async def _wait(self) -> None:
        self.waits.set()
        await self.goes_on.wait()

    async def ask(self, bridge: Bridge) -> bytes:
        await asyncio.wait_for(bridge(dict(SCOPE), self.receive, self.send), 10)
        return body(self.sent)


async def others(bridge: Bridge, *, send: bool) -> Slow:
    """What somebody else is answered who is not slow."""
    caller = Slow(sends=send)
    caller.goes_on.set()
    await caller.ask(bridge)
    return caller


def five(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    start("200 OK", [])
    return Pieces()


def test_a_request_is_shown_as_the_standard_has_it() -> None:
    """Less headers with an underscore: proxies pass them on, and to WSGI they would be those with a hyphen."""
    seen: dict[str, Any] = {}

    def answer(environ: dict[str, Any]) -> Iterable[bytes]:
        seen.update(environ)
        return [environ["wsgi.input"].read()]

    sent = ask(answer, b"whole")
    assert sent[0] == {"type": "http.response.start", "status": 201, "headers": [(b"x-two", b"2")]}
    assert sent[1:] == [{"type": "http.response.body", "body": b"whole", "more_body": False}]
    assert seen["PATH_INFO"].encode("latin-1").decode() == "/åre"
    assert (seen["HTTP_X_ONE"], seen["CONTENT_LENGTH"], seen["CONTENT_TYPE"]) == ("1,2", "7", "text/plain")
    assert (seen["REQUEST_METHOD"], seen["QUERY_STRING"], seen["REMOTE_ADDR"]) == ("PUT", "a=1", "10.0.0.1")


def test_a_body_that_is_still_coming_is_read_piece_by_piece() -> None:
    sizes = []

    def answer(environ: dict[str, Any]) -> Iterable[bytes]:
        read = iter(lambda: environ["wsgi.input"].read(4), b"")
        pieces = list(read)
        sizes.extend(len(piece) for piece in pieces)
        return pieces

    assert body(ask(answer, b"abcdef", b"gh", b"i")) == b"abcdefghi"
    assert sizes == [4, 4, 1]


def test_pieces_are_had_as_they_came_and_the_next_is_waited_for_meanwhile() -> None:
    bodies = [b"abc", b"", b"def", b"g"]
    asked = [threading.Event() for _ in bodies]

    async def receive() -> dict[str, Any]:
        number = sum(event.is_set() for event in asked)
        asked[number].set()
        return {"type": "http.request", "body": bodies[number], "more_body": number + 1 < len(bodies)}

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        for number, piece in enumerate(environ["wsgi.input"].pieces(), start=1):
            came.append(piece)
            assert number == len(bodies) or asked[number].wait(10)
        return []

    async def send(_message: Any) -> None:
        """Nobody looks at it."""

    came: list[bytes] = []
    asyncio.run(Bridge(app, 1, 1, 1)(dict(SCOPE), receive, send))
    assert came == bodies


def test_the_rest_of_a_body_that_nobody_wants_is_not_waited_for() -> None:
    asked, ended = threading.Event(), list[BaseException]()
    first = {"type": "http.request", "body": b"piece", "more_body": True}

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                ended.append(error)
                raise
        asked.set()
        return first

    def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("413 TOO LARGE", [])
        assert next(environ["wsgi.input"].pieces()) == b"piece"
        return [b"enough"]

    async def test() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await asyncio.wait_for(Bridge(answer, 1, 1, 1)(dict(SCOPE), receive, send), 10)
        await asyncio.sleep(0.1)
        return sent

    assert body(asyncio.run(test())) == b"enough"
    assert len(ended) == 1


def test_an_answer_in_pieces_is_passed_on_as_it_comes() -> None:
    """Not kept together: a result may be larger than the memory."""
    pieces = Pieces()
    sent = ask(lambda _: pieces, b"")
    messages = [len(message["body"]) for message in sent[1:]]
    assert (body(sent), messages, pieces.closed) == (b"01234", [1] * 5, True)
    assert [message["more_body"] for message in sent[1:]] == [True] * 4 + [False]


def test_an_empty_answer_has_an_end() -> None:
    assert ask(lambda _: [], b"")[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]


def test_who_hangs_up_is_heard_of_by_the_application() -> None:
    def answer(environ: dict[str, Any]) -> Iterable[bytes]:
        for size in (-1, 2**20):
            with pytest.raises(ClientGone):
                environ["wsgi.input"].read(size)
        return [b"gone"]

    assert body(ask(answer, b"part", broken=True)) == b"gone"


def test_an_error_is_the_callers_of_the_bridge() -> None:
    def answer(_environ: dict[str, Any]) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(answer, b"")


@pytest.mark.parametrize("sends", [True, False])
def test_who_is_slow_holds_nobody_up(sends: bool) -> None:
    """One thread is enough, however slowly another caller sends his request or takes his answer."""

    async def test() -> None:
        bridge, slow = Bridge(five, threads=1, uploads=1, at_once=1), Slow(sends=sends)
        asking = asyncio.create_task(slow.ask(bridge))
        await asyncio.wait_for(slow.waits.wait(), 10)
        assert body((await others(bridge, send=False)).sent) == b"01234"
        slow.goes_on.set()
        assert await asking == b"01234"

    asyncio.run(test())


def test_uploads_have_a_bound_of_their_own() -> None:
    async def test() -> None:
        bridge, slow = Bridge(five, threads=1, uploads=1, at_once=1), Slow(sends=True)
        asking = asyncio.create_task(slow.ask(bridge))
        await asyncio.wait_for(slow.waits.wait(), 10)
        refused = (await others(bridge, send=True)).sent
        assert refused[0]["status"] == 503
        assert (b"retry-after", b"2") in refused[0]["headers"]
        assert b"try again" in body(refused)
        slow.goes_on.set()
        await asking
        assert body((await others(bridge, send=True)).sent) == b"01234"

    asyncio.run(test())


def test_an_answer_that_can_not_be_sent_is_closed() -> None:
    pieces = Pieces()

    def app(_environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        return pieces

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        raise ClientGone

    with pytest.raises(ClientGone):
        asyncio.run(Bridge(app, 1, 1, 1)(dict(SCOPE), receive, send))
    assert pieces.closed
