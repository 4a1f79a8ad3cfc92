"""The tour's machinery itself: a call that goes wrong is counted and named, and nobody is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from client_calls import CALLS, LACKING
from run import Counts
from steps import Step, World, has, public_members, rows, says, tour

pytestmark = pytest.mark.unit


class Group:
    def __init__(self, parent: Client) -> None:
        self.parent = parent

    def get(self, id_: int) -> dict[str, Any]:
        return {"id": id_, "name": f"number {id_}"}

    def refuse(self) -> dict[str, Any]:
        return {"msg": "You may not."}

    def _hidden(self) -> None:
        """Not public."""


class Client:
    def __init__(self) -> None:
        self.things = Group(self)
        self.things.deeper = Group(self)
        self.number = 3

    @property
    def name(self) -> str:
        return "a client"

    def fail(self) -> None:
        raise ValueError("it does not work")


def outcome(*steps: Step) -> list[str]:
    result = tour(list(steps), World(), lambda _: Client())
    assert result.calls == len(steps)
    return result.failed


def test_what_comes_out_right() -> None:
    assert not outcome(
        Step("things.get", lambda _: {"id_": 3}, has(id=3, name="number 3"), keep="third"),
        Step("things.deeper.get", lambda w: {"id_": w.third["id"]}, has(id=lambda w: w.third["id"])),
        Step("things.refuse", check=says("may not")),
        Step("name", check=lambda answer, _: answer == "a client"),
        Step("fail", raises="does not work"),
    )


def test_each_failure_is_named_and_stops_nothing() -> None:
    failed = outcome(
        Step("things.get", lambda _: {"id_": 3}, has(id=4)),
        Step("things.get", lambda _: {"id_": 3}, has(missing=4)),
        Step("things.get", lambda w: {"id_": w.nobody}, has(id=4)),
        Step("things.get", lambda _: {"id_": 3}),
        Step("things.get", lambda _: {"id_": 3}, says("number")),
        Step("things.get", lambda _: {"id_": 3}, raises="never"),
        Step("things.refuse", check=has(id=1)),
        Step("things.refuse", check=says("something else")),
        Step("things.refuse", check=rows(lambda _: [])),
        Step("things.nothing"),
        Step("fail"),
        Step("fail", raises="something else"),
    )
    assert [line.split(":")[0] for line in failed] == [
        *(f"{number}. things.get" for number in range(1, 7)),
        *(f"{number}. things.refuse" for number in range(7, 10)),
        "10. things.nothing",
        "11. fail",
        "12. fail",
    ]


def test_an_answer_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"status": "active"}, {"status": "completed"}])
    monkeypatch.setattr(Group, "refuse", lambda _: next(answers))
    assert not outcome(Step("things.refuse", check=has(status="completed"), eventually=True))


def test_all_public_members_are_found() -> None:
    found = public_members(Client())
    assert found == {"name", "fail", "things.get", "things.refuse", "things.deeper.get", "things.deeper.refuse"}


def test_what_an_older_release_lacks_is_called_with_the_newest() -> None:
    assert {call.method for call in CALLS} >= set().union(*LACKING.values())


def test_the_sums_of_a_run() -> None:
    counts = Counts()
    counts.add("compat: 300 calls, 0 failed\n")
    assert not counts.good
    counts.add("matrix: 2000 cells, 0 mismatches")
    counts.add("compat: 290 calls, 0 failed")
    assert counts.good
    counts.add("compat: 1 calls, 1 failed")
    assert not counts.good
    assert (counts.tried, counts.wrong) == ({"compat": 591, "matrix": 2000}, {"compat": 1, "matrix": 0})
