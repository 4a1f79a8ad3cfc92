"""How the processes of a server on SQLite hear of each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from skerry_server import events, tailing
from skerry_server.database import Database
from skerry_server.events import Hub, announce, prune
from skerry_server.models import Event, utcnow
from skerry_server.seats import Seat
from skerry_server.trail import Trail

PATIENCE = 30.0


class Two:
    """Two processes' databases on one file, in one process."""

    def __init__(self, folder: Path) -> None:
        self.hubs = Hub(), Hub()
        url, seats = f"sqlite:///{folder / 'file.sqlite'}", Seat.row(2)
        self.each = [
            Database(url, hub, Trail(f"writer-{seat.number}", utcnow), utcnow, seat=seat)
            for hub, seat in zip(self.hubs, seats, strict=True)
        ]
        self.each[0].migrate()
        for one in self.each:
            one.listen()

    def say(self, number: int, topic: str) -> None:
        with self.each[number].writing() as session:
            announce(session, [topic], utcnow())

    def fail(self, number: int, topic: str) -> None:
        with self.each[number].writing() as session:
            announce(session, [topic], utcnow())
            events.record(session)
            raise KeyError

    def hears(self, number: int, topic: str, what: Callable[[], None]) -> bool:
        before = self.hubs[number].ticket([topic])
        what()
        end = time.monotonic() + PATIENCE
        while self.hubs[number].ticket([topic]) == before and time.monotonic() < end:
            time.sleep(0.01)
        return self.hubs[number].ticket([topic]) != before


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not look unasked."""
    monkeypatch.setattr(tailing, "_LOOK_SECONDS", 10 * PATIENCE)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    for one in made.each:
        one.close()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.usefixtures("patient")
def test_one_hears_what_the_other_says(two: Two, number: int) -> None:
    for turn in range(3):
        topic = f"task:{turn}"
        assert two.hears(number, topic, lambda: two.say(1 - number, topic))  # noqa: B023 - called here


def test_it_looks_unasked_for_what_nobody_told(monkeypatch: pytest.MonkeyPatch, two: Two) -> None:
    monkeypatch.setattr(Seat, "wake_others", lambda _: None)
    assert two.hears(0, "task:1", lambda: two.say(1, "task:1"))


def test_what_was_rolled_back_is_not_heard(two: Two) -> None:
    before = two.hubs[0].ticket(["task:1"])
    with pytest.raises(KeyError):
        two.fail(1, "task:1")
    assert two.hears(0, "task:2", lambda: two.say(1, "task:2"))
    assert two.hubs[0].ticket(["task:1"]) == before


def test_it_hears_on_when_all_events_are_removed(two: Two) -> None:
    """Their numbers are not given again."""
    for turn in range(3):
        two.say(1, f"task:{turn}")
    with two.each[1].writing() as session:
        prune(session, utcnow() + timedelta(days=1))
        assert session.scalar(select(func.count(Event.id))) == 0
    assert two.hears(0, "task:9", lambda: two.say(1, "task:9"))


def test_it_says_when_it_is_deaf_and_hears_again(
    monkeypatch: pytest.MonkeyPatch, two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tailing, "_SINCE", select(func.no_such_function()))
    two.say(1, "task:1")
    until(lambda: not two.each[0].listens)
    assert "events of other processes can't be heard" in caplog.text
    monkeypatch.undo()
    assert two.hears(0, "task:2", lambda: two.say(1, "task:2"))
    until(lambda: two.each[0].listens)


def until(said: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_alone_wakes_nobody() -> None:
    assert Seat().is_alone
    assert Seat.row(1)[0].is_alone
    Seat().wake_others()


def test_what_was_heard_is_not_told_again(monkeypatch: pytest.MonkeyPatch, two: Two) -> None:
    monkeypatch.setattr(tailing, "_LOOK_SECONDS", 0.01)
    assert two.hears(0, "task:1", lambda: two.say(1, "task:1"))
    before = two.hubs[0].ticket(["task:1"])
    assert two.hears(0, "task:2", lambda: two.say(1, "task:2"))
    assert two.hubs[0].ticket(["task:1"]) == before


def test_who_sleeps_is_woken_by_others_once() -> None:
    first, second = Seat.row(2)
    for _ in range(2):
        second.wake_others()
    assert slept(first, PATIENCE) < PATIENCE
    assert slept(first, 0.2) >= 0.2
    assert slept(second, 0.2) >= 0.2
    second.wake()
    assert slept(second, PATIENCE) < PATIENCE


def slept(seat: Seat, seconds: float) -> float:
    began = time.monotonic()
    seat.sleep(seconds)
    return time.monotonic() - began
