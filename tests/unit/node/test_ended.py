"""What a node remembers of the attempts that it has started."""

from __future__ import annotations

import pytest

from skerry.errors import NotRecorded
from skerry_node.ended import EndedAttempts
from skerry_node.launchers.launcher import Attempt

ATTEMPT = Attempt(7, 1)


@pytest.fixture
def open_file(tmp_path):
    made = []

    def make(now: float = 0.0) -> EndedAttempts:
        made.append(EndedAttempts(tmp_path / "ended.sqlite3", lambda: now))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_outlives_the_process(open_file) -> None:
    open_file().add(ATTEMPT, "first")
    assert open_file().has(ATTEMPT, "first")


def test_another_task_may_have_that_number_and_another_attempt_may_follow(open_file) -> None:
    ended = open_file()
    ended.add(ATTEMPT, "first")
    assert not ended.has(ATTEMPT, "second")
    assert not ended.has(Attempt(7, 2), "first")


def test_of_an_unknown_task_the_number_counts(open_file) -> None:
    ended = open_file()
    ended.add(ATTEMPT, None)
    assert ended.has(ATTEMPT, "any")


def test_what_is_told_again_is_kept_once(open_file) -> None:
    """A server that orders it again and again fills no disk."""
    ended = open_file()
    for _ in range(3):
        ended.add(ATTEMPT, None)
    assert ended._connection.execute("SELECT count(*) FROM ended").fetchone() == (1,)


def test_after_more_than_a_year_it_is_forgotten(open_file) -> None:
    open_file().add(ATTEMPT, "first")
    late = open_file(400 * 86_400)
    late.add(Attempt(8, 1), "second")
    assert not late.has(ATTEMPT, "first")


def test_what_can_not_be_written_is_remembered_by_the_process(open_file) -> None:
    ended = open_file()
    ended._connection.execute("DROP TABLE ended")
    with pytest.raises(NotRecorded):
        ended.add(ATTEMPT, "first")
    assert ended.has(ATTEMPT, "first")
    with pytest.raises(NotRecorded):
        ended.has(ATTEMPT, "second")
