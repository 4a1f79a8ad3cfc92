"""Inputs and children's results come however often their connection breaks off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from cutserver import CutServer, cut_server
from federation import make_settings

from skerry.errors import ServerError, ServerUnreachable
from skerry_proxy import upstream
from skerry_proxy.settings import Settings
from skerry_proxy.upstream import Upstream

pytestmark = pytest.mark.unit
CONTENT = bytes(range(256)) * 40


@dataclass
class Reader:
    """Downloads the content, each time with another token."""

    server: CutServer
    upstream: Upstream
    closing: threading.Event = field(default_factory=threading.Event)
    tokens: list[str] = field(default_factory=list)
    got: bytes = b""

    def token(self) -> str:
        self.tokens.append(f"token-{len(self.tokens)}")
        return self.tokens[-1]

    def read(self, patience: float = 20.0) -> bytes:
        with self.upstream.download("/x", self.token, self.closing, patience) as pieces:
            for piece in pieces:
                self.got += piece
        return self.got


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Iterator[Callable[..., Reader]]:
    monkeypatch.setattr(upstream, "_PIECE", 500)  # what a break leaves of a piece is lost
    with cut_server(CONTENT, lambda _: 0) as server:
        settings = Settings.parse(json.dumps(make_settings(server.url, tmp_path)).encode())
        connected = Upstream(settings)

        def make(bring: Callable[[int], int]) -> Reader:
            server.bring = bring
            return Reader(server, connected)

        yield make
        connected.close()


def test_a_download_goes_on_where_it_broke_off(reader) -> None:
    one = reader(lambda _: 2000)
    assert one.read() == CONTENT
    assert one.server.ranges == [f"bytes={have}-" if have else "" for have in range(0, len(CONTENT), 2000)]
    assert len(set(one.tokens)) == len(one.server.ranges)


def test_it_waits_for_a_server_that_is_away(reader) -> None:
    one = reader(lambda number: {1: -1, 2: 0, 3: -1}.get(number, 5500))
    assert one.read() == CONTENT
    assert len(one.server.ranges) == 5


def test_patience_is_counted_from_the_last_byte_on(reader) -> None:
    one = reader(lambda number: 1000 if number % 3 == 0 else -1)
    assert one.read(patience=1.5) == CONTENT


@pytest.mark.parametrize("bring", [0, -1])
def test_it_is_given_up_when_nothing_comes_any_more(reader, bring) -> None:
    one = reader(lambda number: bring if number else 2000)
    with pytest.raises(ServerUnreachable):
        one.read(patience=0.3)
    assert one.got == CONTENT[:2000]


def test_it_ends_with_the_gate(reader) -> None:
    one, start = reader(lambda number: -1 if number else 2000), time.monotonic()
    threading.Timer(0.3, one.closing.set).start()
    with pytest.raises(ServerUnreachable):
        one.read(patience=60)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("bring", [0, -1])
def test_who_asked_decides_what_becomes_of_a_download_that_does_not_begin(reader, bring) -> None:
    one = reader(lambda _: bring)
    with pytest.raises(ServerUnreachable):
        one.read(patience=60)
    assert len(one.server.ranges) == 1


def test_an_answer_that_does_not_go_on_where_it_should_is_refused(reader) -> None:
    one = reader(lambda _: 2000)
    one.server.forgetful = True
    with pytest.raises(ServerError, match="where in the payload"):
        one.read()
