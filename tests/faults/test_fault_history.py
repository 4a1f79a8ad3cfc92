"""The checker itself: a good history passes, and each planted fault is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fault_history import (
    Acknowledged,
    End,
    History,
    NodeStart,
    RunRow,
    Start,
    Step,
    TaskRow,
    Told,
    check,
)

pytestmark = pytest.mark.unit

GOOD = History(
    acknowledged=(Acknowledged(1, "a", 2), Acknowledged(2, "b", 1)),
    told=(Told(1, "completed", "d1"), Told(1, "completed", "d1"), Told(3, "crashed", None)),
    starts=(Start(1, "n1"), Start(1, "n1"), Start(2, "n2"), Start(3, "n3")),
    ends=(End(1, "n1", "d1"), End(2, "n2", "d2")),
    tasks=(TaskRow(1, "a"), TaskRow(2, "b"), TaskRow(3, "never acknowledged")),
    runs=(
        RunRow(1, 1, "completed", 1, has_result=True),
        RunRow(2, 1, "completed", 1, has_result=True),
        RunRow(3, 2, "crashed", 1, has_result=False),
    ),
    steps=(
        *(Step(run, state) for run in (1, 2) for state in ("initializing", "active", "completed")),
        *(Step(3, state) for state in ("initializing", "crashed")),
    ),
    node_starts=(NodeStart("one", 1, 1), NodeStart("two", 2, 1), NodeStart("one", 3, 1)),
)


def change_run(number: int, **changes) -> History:
    runs = tuple(replace(row, **changes) if row.run == number else row for row in GOOD.runs)
    return replace(GOOD, runs=runs)


PLANTED = {
    "task 2 was acknowledged and is lost": replace(GOOD, tasks=GOOD.tasks[:1] + GOOD.tasks[2:]),
    "task 1 was acknowledged with 2 runs and has 1": replace(
        GOOD, runs=GOOD.runs[:1] + GOOD.runs[2:], steps=tuple(step for step in GOOD.steps if step.run != 2)
    ),
    "2 tasks were made of the one that its asker called a": replace(GOOD, tasks=(*GOOD.tasks, TaskRow(9, "a"))),
    "run 3 did not end: it is active": change_run(3, state="active"),
    "run 3 entered 2 terminal states": replace(GOOD, steps=(*GOOD.steps, Step(3, "lost"))),
    "run 2 entered 0 terminal states": replace(GOOD, steps=tuple(step for step in GOOD.steps if step.run != 2)),
    "run 1 was completed and became active": replace(GOOD, steps=(*GOOD.steps, Step(1, "active"))),
    "run 2 started 2 times in 1 attempts": replace(GOOD, starts=(*GOOD.starts, Start(2, "n4"))),
    "run 2 had 2 attempts, and 1 is allowed": change_run(2, attempt=2),
    "node two saw attempt 1 of run 2 start 2 times": replace(
        GOOD, node_starts=(*GOOD.node_starts, NodeStart("two", 2, 1))
    ),
    "run 2 is completed and has no result": change_run(2, has_result=False),
    "run 3 is crashed and has a result": change_run(3, has_result=True),
    "run 2 is completed, and its algorithm never came to its end": replace(GOOD, ends=GOOD.ends[:1]),
    "run 2 gave its asker another result than its algorithm wrote": replace(
        GOOD, told=(*GOOD.told, Told(2, "completed", "d1"))
    ),
    "run 8 was told to a client and is lost": replace(GOOD, told=(*GOOD.told, Told(8, "failed", None))),
    "run 3 was told as completed and is crashed": replace(GOOD, told=(*GOOD.told[:2], Told(3, "completed", None))),
    "run 3 was told as crashed and then as lost, or with another result": replace(
        GOOD, told=(*GOOD.told, Told(3, "lost", None))
    ),
    "plaintext in the server's folder": replace(GOOD, plaintext=("the server's folder",)),
    "the audit chain of node one is broken": replace(GOOD, broken=("node one",)),
    "left over: container x": replace(GOOD, left=("container x",)),
}


def go_on(*runs: tuple[int, float, float], places: int = 1, **parents: int) -> History:
    """All at one node, from when to when; run 1 is of task 1 and so on, and task 2 a child of task 1 by ``t2=1``."""
    return History(
        starts=[Start(run, "n", since) for run, since, _ in runs],
        ends=[End(run, "n", "d", until) for run, _, until in runs],
        tasks=[TaskRow(run, f"task {run}", parents.get(f"t{run}")) for run, *_ in runs],
        runs=[RunRow(run, run, "completed", 1, has_result=True) for run, *_ in runs],
        node_starts=[NodeStart("one", run, 1) for run, *_ in runs],
        places={"one": places},
    )


def test_runs_follow_each_other_in_a_place() -> None:
    assert check(go_on((1, 0, 2), (2, 1, 3), (3, 2.5, 4), places=2)) == []
    crowded = go_on((1, 0, 2), (2, 1, 3), (3, 1.5, 4), places=2)
    assert check(crowded) == ["node one ran 3 tasks that are nobody's children at a time, and has 2 places"]


def test_a_place_is_lent_to_a_child_and_to_no_other() -> None:
    assert check(go_on((1, 0, 9), (2, 1, 2), t2=1)) == []
    assert check(go_on((1, 0, 9), (2, 1, 8), (3, 2, 3), t2=1, t3=2)) == []
    assert len(check(go_on((1, 0, 9), (2, 1, 2)))) == 1
    both = go_on((1, 0, 9), (2, 1, 4), (3, 2, 3), t2=1, t3=1)
    assert check(both) == ["node one ran 3 algorithms at a time, and had places for 2"]


def test_a_place_is_lent_so_deep_at_most() -> None:
    deep = [(run, float(run), 30.0 - run) for run in range(1, 10)]
    parents = {f"t{run}": run - 1 for run in range(2, 10)}
    assert check(go_on(*deep[:8], **parents)) == []
    assert check(go_on(*deep, **parents)) == ["node one ran 9 algorithms at a time, and had places for 8"]


def test_a_run_that_was_ended_from_outside_takes_no_part() -> None:
    crowded = go_on((1, 0, 9), (2, 1, 2))
    rows = (replace(crowded.runs[0], state="killed", has_result=False), crowded.runs[1])
    assert check(replace(crowded, runs=rows)) == []


def test_a_good_history_has_no_violation() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("sentence", PLANTED)
def test_a_planted_fault_is_found(sentence) -> None:
    assert sentence in check(PLANTED[sentence])


def test_a_second_attempt_may_be_allowed() -> None:
    again = replace(change_run(2, attempt=2), starts=(*GOOD.starts, Start(2, "n4")))
    assert check(again, attempts_allowed=2) == []
    assert len(check(again)) == 1


def test_a_run_that_never_started_may_not_complete() -> None:
    history = replace(GOOD, starts=GOOD.starts[:2], ends=GOOD.ends[:1])
    assert check(history) == ["run 2 is completed, and its algorithm never came to its end"]
