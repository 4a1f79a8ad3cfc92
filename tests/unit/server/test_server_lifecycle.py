from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime

import pytest

from skerry.wire import Limit, Status
from skerry_server.errors import StaleAttempt
from skerry_server.lifecycle import HELD, NEXT, OPEN, SHOWN, State, advance, explain, reported, task_status

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1)  # noqa: DTZ001 - the tables keep naive UTC
ENDS = "completed failed start_failed no_image crashed killed not_allowed unknown_error lost timed_out"
# Written down again by hand: what may follow what.
ALLOWED = {
    "pending": "initializing killed",
    "initializing": f"active {ENDS}",
    "active": "completed failed start_failed crashed killed unknown_error lost timed_out",
}


@dataclass
class Run:
    state: State
    started_at: datetime | None = None
    finished_at: datetime | None = None


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_every_pair_of_states(before: State, after: State) -> None:
    run = Run(before)
    if after in ALLOWED.get(before, "").split():
        advance(run, after, NOW)
        assert run.state is after
        assert (run.finished_at == NOW) is (after in ENDS.split())
    else:
        with pytest.raises(StaleAttempt):
            advance(run, after, NOW)
        assert run == Run(before)


def test_every_state_is_in_every_table() -> None:
    assert set(NEXT) == set(SHOWN) == set(State)
    assert set(OPEN) == {State.PENDING, State.INITIALIZING, State.ACTIVE}
    assert set(HELD) < set(OPEN)


def test_ended_means_the_same_inside_and_outside() -> None:
    for state in State:
        assert state.terminal is state.shown.finished


def test_the_start_is_noted_once() -> None:
    run = Run(State.PENDING)
    advance(run, State.INITIALIZING, NOW)
    advance(run, State.ACTIVE, datetime(2027, 1, 1))  # noqa: DTZ001
    assert run.started_at == NOW


def test_a_node_reports_each_word_but_pending() -> None:
    assert {reported(status).shown for status in Status if status is not Status.PENDING} == set(Status) - {"pending"}
    with pytest.raises(StaleAttempt):
        reported(Status.PENDING)


def test_a_node_can_say_that_its_time_limit_ended_a_run() -> None:
    assert reported(Limit.TIME) is State.TIMED_OUT
    assert reported(Status.FAILED) is State.FAILED
    assert [state for state in State if explain(state)] == [State.TIMED_OUT]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ("pending", "pending"),
        ("completed pending", "pending"),
        ("completed initializing pending", "initializing"),
        ("completed active initializing", "active"),
        ("completed completed", "completed"),
        ("crashed active", "crashed"),
        ("crashed crashed completed", "crashed"),
        ("crashed failed", "failed"),
        ("lost completed", "unknown error"),
        ("timed_out failed", "failed"),
        ("killed", "killed by user"),
    ],
)
def test_a_tasks_status(states: str, status: str) -> None:
    assert task_status(State(state) for state in states.split()) == status
