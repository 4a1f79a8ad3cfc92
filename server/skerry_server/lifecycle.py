"""A run's life as a table: which state may follow which, and what the world is told of each. No I/O, no clock.

vantage6's vocabulary lacks "lost" and "timed out": ``SHOWN`` maps them onto it. A lost run is shown as
``unknown error``, since ``crashed`` would claim that its container exited, which nobody knows; one that took longer
than its node allows as ``failed``, and ``explain`` says the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from skerry.wire import End, Limit, Status
from skerry_server.errors import StaleAttempt


class State(StrEnum):
    PENDING = "pending"
    INITIALIZING = "initializing"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    START_FAILED = "start_failed"
    NO_IMAGE = "no_image"
    CRASHED = "crashed"
    KILLED = "killed"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN_ERROR = "unknown_error"
    LOST = "lost"
    TIMED_OUT = "timed_out"

    @property
    def terminal(self) -> bool:
        return not NEXT[self]

    @property
    def shown(self) -> Status:
        return SHOWN[self]


_AFTER_START = frozenset(
    {
        State.COMPLETED,
        State.FAILED,
        State.START_FAILED,
        State.CRASHED,
        State.KILLED,
        State.UNKNOWN_ERROR,
        State.LOST,
        State.TIMED_OUT,
    }
)
_NOTHING: frozenset[State] = frozenset()

NEXT: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.INITIALIZING, State.KILLED}),
    State.INITIALIZING: _AFTER_START | {State.ACTIVE, State.NO_IMAGE, State.NOT_ALLOWED},
    State.ACTIVE: _AFTER_START,
    State.COMPLETED: _NOTHING,
    State.FAILED: _NOTHING,
    State.START_FAILED: _NOTHING,
    State.NO_IMAGE: _NOTHING,
    State.CRASHED: _NOTHING,
    State.KILLED: _NOTHING,
    State.NOT_ALLOWED: _NOTHING,
    State.UNKNOWN_ERROR: _NOTHING,
    State.LOST: _NOTHING,
    State.TIMED_OUT: _NOTHING,
}

SHOWN: dict[State, Status] = {
    State.PENDING: Status.PENDING,
    State.INITIALIZING: Status.INITIALIZING,
    State.ACTIVE: Status.ACTIVE,
    State.COMPLETED: Status.COMPLETED,
    State.FAILED: Status.FAILED,
    State.START_FAILED: Status.START_FAILED,
    State.NO_IMAGE: Status.NO_IMAGE,
    State.CRASHED: Status.CRASHED,
    State.KILLED: Status.KILLED,
    State.NOT_ALLOWED: Status.NOT_ALLOWED,
    State.UNKNOWN_ERROR: Status.UNKNOWN_ERROR,
    State.LOST: Status.UNKNOWN_ERROR,
    State.TIMED_OUT: Status.FAILED,
}

OPEN = tuple(state for state in State if NEXT[state])
HELD = (State.INITIALIZING, State.ACTIVE)

_REPORTED: dict[End, State] = {
    shown: state for state, shown in SHOWN.items() if state not in {State.PENDING, State.LOST, State.TIMED_OUT}
}
_REPORTED[Limit.TIME] = State.TIMED_OUT


def reported(word: End) -> State:
    """The state that a node means by a word of the wire; raises StaleAttempt for ``pending``."""
    try:
        return _REPORTED[word]
    except KeyError as error:
        raise StaleAttempt("A run does not become pending again.") from error


def explain(state: State) -> str | None:
    """What is to be said of a state beside the word that it is shown as."""
    return "It took longer than its node allows." if state is State.TIMED_OUT else None


class Living(Protocol):
    """What has a life: a run."""

    state: State
    started_at: datetime | None
    finished_at: datetime | None


def advance(run: Living, to: State, now: datetime) -> None:
    """The one place where a run's state changes; raises StaleAttempt for a step that the table does not have."""
    if to not in NEXT[run.state]:
        raise StaleAttempt(f'A run that is "{run.state.shown}" does not become "{to.shown}".')
    run.state = to
    if run.started_at is None and to in HELD:
        run.started_at = now
    if to.terminal:
        run.finished_at = now


def task_status(states: Iterable[State]) -> Status:
    """A task's status from its runs', as the vantage6 dialect derives it (contract, section 2.9)."""
    shown = {state.shown for state in states}
    failed = {status for status in shown if status.failed}
    if failed:
        return failed.pop() if len(failed) == 1 else Status.FAILED
    for status in (Status.ACTIVE, Status.INITIALIZING, Status.PENDING):
        if status in shown:
            return status
    return Status.COMPLETED
