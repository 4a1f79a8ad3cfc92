from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from skerry_server.clocks import SharedClock
from skerry_server.models import utcnow
from skerry_server.server import Server, open_server

pytestmark = pytest.mark.unit
NOON = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - as the tables keep it


class Machine:
    """Its clock, and its seconds since it was started."""

    def __init__(self) -> None:
        self.now = NOON
        self.steady = 500.0

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> SharedClock:
    return SharedClock(lambda: machine.now, lambda: machine.steady)


def test_without_a_database_that_has_a_clock_it_is_the_machines(machine: Machine, clock: SharedClock) -> None:
    clock.set(None)
    machine.now += timedelta(days=1)
    assert clock() == NOON + timedelta(days=1)


def test_a_machine_whose_clock_is_set_changes_nothing(machine: Machine, clock: SharedClock) -> None:
    clock.set(NOON)
    machine.turn(5)
    machine.now += timedelta(days=1)
    assert clock() == NOON + timedelta(seconds=5)
    clock.set(NOON + timedelta(seconds=6))
    assert clock() == NOON + timedelta(seconds=6)


@pytest.mark.parametrize(("apart", "words"), [(7200, "7200 s ahead of"), (-120, "120 s behind")])
def test_clocks_that_differ_are_said_once(
    machine: Machine, clock: SharedClock, caplog: pytest.LogCaptureFixture, apart: int, words: str
) -> None:
    for _ in range(3):
        clock.set(machine.now - timedelta(seconds=apart))
        machine.turn(10)
    [line] = caplog.messages
    assert words in line
    caplog.clear()
    clock.set(machine.now)
    assert not caplog.messages
    clock.set(machine.now - timedelta(seconds=apart))
    assert words in caplog.text


def test_the_clock_of_a_database_counts_where_it_has_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def later() -> datetime:
        return utcnow() + timedelta(hours=3)

    monkeypatch.setattr("skerry_server.server.SharedClock", lambda: SharedClock(later))
    other = open_server(server.settings)
    expected = other.database.now() or later()
    assert abs(other.clock() - expected) < timedelta(minutes=1)
    other.database.close()
