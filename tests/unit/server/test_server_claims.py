"""Claims against a model: whatever nodes and users do, in whatever order, each run is held by at most one attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from server_federation import Api, Federation, plain

pytestmark = pytest.mark.unit

NODES = st.sampled_from([1, 2])
ENDS = st.sampled_from(["completed", "failed", "crashed", "not allowed", "start failed"])


class Claims(RuleBasedStateMachine):
    """The model: for each run its organization, its attempt, whether it ended and how; for each node what it holds."""

    federation: Federation
    researcher: Api

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.ended: dict[int, str] = {}
        self.held: dict[int, dict[int, int]] = {1: {}, 2: {}}
        self.tasks: list[int] = []

    @rule(organizations=st.sets(NODES, min_size=1))
    def create(self, organizations: set[int]) -> None:
        task = self.federation.make_task(self.researcher, *sorted(organizations))
        self.tasks.append(task["id"])
        for run in self.researcher.get("run", task_id=task["id"])["data"]:
            self.open[run["id"]] = run["organization"]["id"]

    @rule(node=NODES, capacity=st.integers(0, 3), loses_answer=st.booleans())
    def work(self, node: int, capacity: int, *, loses_answer: bool) -> None:
        holding = [{"run": run, "attempt": attempt} for run, attempt in self.held[node].items()]
        answer = self.federation.work(node, capacity=capacity, holding=holding)
        given = {order["run"]: order["attempt"] for order in answer["runs"]}
        fresh = [run for run in given if run not in self.attempts]
        waiting = sorted(run for run, where in self.open.items() if where == node and run not in self.attempts)
        forgotten = sorted(r for r in self.attempts if self.open.get(r) == node and r not in self.held[node])
        assert sorted(set(given) - set(fresh)) == forgotten[:capacity]
        assert sorted(fresh) == waiting[: max(capacity - len(forgotten), 0)]
        assert all(given[run] == self.attempts.get(run, 1) for run in given)
        stopped = {stop["run"] for stop in answer["stop"]}
        assert stopped == {run for run in self.held[node] if self.ended.get(run) == "killed by user"}
        self.attempts |= dict.fromkeys(fresh, 1)
        if not loses_answer:
            self.held[node] = {r: a for r, a in {**self.held[node], **given}.items() if r not in stopped}

    @rule(node=NODES, data=st.data(), status=ENDS, by_run=st.booleans())
    def finish(self, node: int, data: Any, status: str, *, by_run: bool) -> None:
        if not self.held[node]:
            return
        run = data.draw(st.sampled_from(sorted(self.held[node])))
        body = {"attempt": 1, "status": status, "result": plain(1) if status == "completed" else None}
        caller = self.federation.nodes[node]
        if by_run and run not in self.ended:
            caller = Api(caller.client, caller.post(f"skerry/run/{run}/token", {"attempt": 1})["token"])
        answer = caller.ask("POST", f"skerry/run/{run}/finish", body)
        expected = self.ended.setdefault(run, status)
        assert answer.status_code == (200 if expected == status else 409)
        self.open.pop(run, None)

    @rule(node=NODES, data=st.data())
    def drop(self, node: int, data: Any) -> None:
        """The node restarts and forgets, or is done with a run."""
        if self.held[node]:
            del self.held[node][data.draw(st.sampled_from(sorted(self.held[node])))]

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        runs = [run["id"] for run in self.researcher.get("run", task_id=task)["data"]]
        still = [run for run in runs if run in self.open]
        answer = self.researcher.ask("POST", "kill/task", {"id": task})
        assert answer.status_code == (200 if still else 400)
        for run in still:
            del self.open[run]
            self.ended[run] = "killed by user"

    @invariant()
    def the_server_agrees(self) -> None:
        shown = {run["id"]: run["status"] for run in self.researcher.get("run", per_page=1000)["data"]}
        for run, status in self.ended.items():
            assert shown[run] == status
        for run in self.open:
            assert shown[run] == ("initializing" if run in self.attempts else "pending")


def test_claims(federation: Federation) -> None:
    researcher = federation.make_user()

    class Bound(Claims):
        def __init__(self) -> None:
            super().__init__()
            self.federation, self.researcher = federation, researcher
            for task in researcher.get("task", per_page=1000)["data"]:
                researcher.delete(f"task/{task['id']}")

    Bound.TestCase.settings = settings(
        max_examples=10,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    Bound.TestCase().runTest()
