from __future__ import annotations

import pytest

from skerry.errors import Conflict, ServerUnreachable
from skerry_node.launchers.launcher import LauncherError
from skerry_node.live_log import LIMIT, LiveLog
from skerry_proxy.client import ProxyError

pytestmark = pytest.mark.unit


class Run:
    def __init__(self) -> None:
        self.now, self.log, self.told = 0.0, "", []
        self.live = LiveLog(lambda: self.log, self.told.append, lambda: self.now)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.live.tell_if_due()


def test_only_what_is_new_is_told() -> None:
    run = Run()
    run.log = "a\n"
    run.turn(0.5)
    assert run.told == []
    run.turn(0.5)
    run.turn(100)
    assert run.told == ["a\n"]
    run.log += "b\n"
    run.turn(100)
    assert run.told == ["a\n", "a\nb\n"]


def test_it_is_told_ever_less_often() -> None:
    run, pauses = Run(), []
    for _ in range(30):
        pauses.append(run.live.seconds_left())
        run.turn(pauses[-1])
    assert pauses[0] == 1.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0


def test_the_last_of_a_long_log() -> None:
    run = Run()
    run.log = "x" * 3 * LIMIT + "the end"
    run.turn(1)
    assert run.told[0].endswith("the end")
    assert len(run.told[0]) < LIMIT + 100


@pytest.mark.parametrize(
    "error",
    [LauncherError("x"), ProxyError("internal", "x"), ServerUnreachable("x"), Conflict("x", 409)],
)
def test_what_goes_wrong_does_not_end_the_run(error) -> None:
    def tell(_):
        raise error

    now = [0.0]
    live = LiveLog(lambda: "a", tell, lambda: now[0])
    now[0] = 1.0
    live.tell_if_due()
    assert live.seconds_left() > 0
