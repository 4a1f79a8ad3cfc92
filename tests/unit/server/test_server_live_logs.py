"""What a node shows of a run's log while the run is active."""

from __future__ import annotations

from typing import Any

import pytest
from server_federation import Api, Federation

from skerry_server.doors.native.runs import LIVE_LOG
from skerry_server.waiting import WAIT_HEADER

pytestmark = pytest.mark.unit


def show(federation: Federation, order: dict[str, Any], log: str, attempt: int = 1) -> Any:
    return federation.nodes[2].ask("PUT", f"skerry/run/{order['run']}/log", {"attempt": attempt, "log": log})


def test_those_who_wait_hear_of_it(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    path = f"skerry/task/{task['id']}/wait"
    before = researcher.get(path)
    assert before["runs"][0]["live_log"] == 0
    ticket = federation.server.hub.ticket([f"task:{task['id']}"])
    Api.ok(show(federation, order, "a\n"))
    Api.ok(show(federation, order, "a\nb\n"))
    assert federation.server.hub.ticket([f"task:{task['id']}"]).counters != ticket.counters
    after = researcher.get(path, seen=before["seen"])
    assert (after["runs"][0]["live_log"], after["finished"]) == (2, False)
    assert researcher.get(f"run/{order['run']}")["log"] == "a\nb\n"
    federation.finish(order)
    ended = researcher.get(path)
    assert ended["runs"][0]["live_log"] == 0
    assert researcher.get(f"run/{order['run']}")["log"] == "log"


def test_a_parent_that_waits_is_not_told(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    parent = federation.as_run(federation.claim(1))
    child = parent.post("task", federation.task_body(2))
    order, path = federation.claim(2), f"skerry/task/{child['id']}/wait"
    seen = parent.get(path)
    assert "live_log" not in seen["runs"][0]
    Api.ok(show(federation, order, "a\n"))
    assert WAIT_HEADER in parent.ask("GET", path, query_string={"seen": seen["seen"]}).headers


def test_only_the_node_of_the_open_run_shows_it(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    path, body = f"skerry/run/{order['run']}/log", {"attempt": 1, "log": "a"}
    assert show(federation, order, "a", attempt=2).status_code == 409
    federation.nodes[1].refused(401, "PUT", path, body)
    for other in (researcher, federation.as_run(order), federation.anybody):
        other.refused(401, "PUT", path, body)
    federation.finish(order)
    assert show(federation, order, "too late").status_code == 409
    assert researcher.get(f"run/{order['run']}")["log"] == "log"


@pytest.mark.parametrize("log", ["x" * (LIVE_LOG + 1), "\0", None, 1])
def test_a_log_that_is_none(federation: Federation, researcher: Api, log: Any) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    refused = show(federation, order, log)
    assert refused.status_code in {400, 413}
    assert "msg" in refused.get_json()


def test_the_whole_log_of_a_killed_run_takes_its_place_once(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    Api.ok(show(federation, order, "a\n"))
    researcher.post("kill/task", {"id": task["id"]})
    assert researcher.get(f"run/{order['run']}")["log"] == "a\n"
    for log in ("a\nthe end\n", "another"):
        federation.finish(order, "killed by user", federation.nodes[2], log=log)
    assert researcher.get(f"run/{order['run']}")["log"] == "a\nthe end\n"
