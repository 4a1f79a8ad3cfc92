"""Large payloads over real HTTP: they go on where they broke off, and wait as long as there is hope."""

from __future__ import annotations

import io
from typing import Any

import pytest
from cutserver import cut_server

from skerry import streams
from skerry.errors import InvalidInput, ServerError, ServerUnreachable
from skerry.session import Session
from skerry.transport import Transport

pytestmark = pytest.mark.unit
PATH = "skerry/blob/x"
CONTENT = bytes(range(256)) * 100
BUSY = (503, {"msg": "Another upload of this payload is under way: try again in a moment."})


class Time:
    """A clock that moves only when someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def session(server, time_, make_token) -> Session:
    server.on("POST", "token/user", {"access_token": make_token(7), "refresh_token": make_token(7)})
    session = Session(Transport(server.url, clock=time_.clock, sleep=time_.sleep), lambda: 0.0)
    session.log_in("root", "secret", None)
    return session


class Store:
    """Takes ``each`` bytes of an upload in ``lasts`` seconds and hangs up; for ``seconds`` from then on it is busy."""

    def __init__(
        self, time_: Time, *, each: int = 1 << 30, lasts: float = 0.0, seconds: float = 0.0, trouble: Any = BUSY
    ) -> None:
        self._time, self._each, self._lasts, self._seconds, self._trouble = time_, each, lasts, seconds, trouble
        self.held, self.until = b"", 0.0

    def tell(self, _asked: Any) -> Any:
        return {"received": len(self.held), "complete": self.held == CONTENT and self._time.now >= self.until}

    def take(self, asked: Any) -> Any:
        if self._time.now < self.until:
            return self._trouble
        self.held = self.held[: int(asked.params["start"])] + asked.body[: self._each]
        self._time.now += self._lasts
        self.until = self._time.now + self._seconds
        return {} if self.held == CONTENT and not self._seconds else None


def upload(server: Any, session: Session, store: Store) -> None:
    server.on("GET", PATH, store.tell)
    server.on("PUT", PATH, store.take)
    streams.upload(session, PATH, io.BytesIO(CONTENT))


def test_an_upload_waits_for_a_server_that_holds_on_to_a_connection_which_is_gone(server, session, time_) -> None:
    store = Store(time_, each=10_000, lasts=1000, seconds=120)
    upload(server, session, store)
    assert store.held == CONTENT
    assert 3 * 1120 <= time_.now < 4 * 1120
    assert len(server.calls("PUT", PATH)) < 3 * 120


@pytest.mark.parametrize("trouble", [BUSY, (500, {"msg": "?"}), (429, {}), (409, {"msg": "Someone was first."}), None])
def test_an_upload_waits_for_a_slow_store(server, session, time_, trouble) -> None:
    store = Store(time_, seconds=200, trouble=trouble)
    upload(server, session, store)
    assert store.held == CONTENT


def test_an_upload_is_given_up_when_nothing_comes_of_it(server, session, time_) -> None:
    with pytest.raises(ServerError, match="under way"):
        upload(server, session, Store(time_, each=10_000, seconds=1_000_000))
    assert 300 <= time_.now < 310


def test_an_upload_that_is_refused_is_not_tried_again(server, session, time_) -> None:
    with pytest.raises(InvalidInput, match="envelope"):
        upload(server, session, Store(time_, each=10_000, seconds=60, trouble=(400, {"msg": "No envelope."})))
    assert len(server.calls("PUT", PATH)) == 2


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """What a break leaves of a piece is lost."""
    monkeypatch.setattr(streams, "PIECE", 500)


def download(session: Session, time_: Time, bring: Any) -> tuple[bytes, list[str]]:
    with cut_server(CONTENT, bring) as server:
        session.transport = Transport(server.url, clock=time_.clock, sleep=time_.sleep)
        return b"".join(streams.download(session, PATH)), server.ranges


@pytest.mark.usefixtures("small_pieces")
def test_a_download_goes_on_where_it_broke_off_however_often(session, time_) -> None:
    content, ranges = download(session, time_, lambda _: 1000)
    assert content == CONTENT
    assert ranges == [f"bytes={have}-" if have else "" for have in range(0, len(CONTENT), 1000)]


@pytest.mark.usefixtures("small_pieces")
def test_a_download_waits_while_answers_bring_nothing(session, time_) -> None:
    content, ranges = download(session, time_, lambda number: (0, -1)[number % 2] if 0 < number < 60 else 10_000)
    assert content == CONTENT
    assert len(ranges) == 62
    assert time_.now > 60


@pytest.mark.parametrize(("bring", "error"), [(0, ServerUnreachable), (-1, ServerError)])
def test_a_download_is_given_up_when_nothing_comes_of_it(session, time_, bring, error) -> None:
    with pytest.raises(error):
        download(session, time_, lambda number: 10_000 if not number else bring)
    assert 300 <= time_.now < 310
