"""A run's way over the native door: claimed, reported, finished, fenced, killed, lost."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from server_federation import Api, Federation, plain
from sqlalchemy import NullPool, create_engine, update

from skerry_server.events import Ticket, node_topic
from skerry_server.lifecycle import State
from skerry_server.models import Run, Task
from skerry_server.server import Server
from skerry_server.services.work import Report, topics
from skerry_server.sweeping import Sweeper
from skerry_server.waiting import TICKET_HEADER, WAIT_HEADER

pytestmark = pytest.mark.unit


def test_the_main_path(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1, 2, databases=[{"label": "default"}])
    assert task["status"] == "pending"
    order = federation.claim(2)
    assert order["attempt"] == 1
    assert order["format"] == "plain"
    assert order["task"]["uuid"] == task["uuid"]
    assert order["task"]["databases"] == [{"label": "default"}]
    assert base64.b64decode(order["input"]) == b'{"method": "mean"}'
    active = federation.nodes[2].post(f"skerry/run/{order['run']}/status", {"attempt": 1, "status": "active"})
    assert active == {"status": "active"}
    assert federation.finish(order) == {"status": "completed"}
    federation.finish(federation.claim(1))
    progress = researcher.get(f"skerry/task/{task['id']}/wait")
    assert (progress["status"], progress["finished"]) == ("completed", True)
    results = researcher.get("result", task_id=task["id"])["data"]
    assert [base64.b64decode(one["result"]) for one in results] == [b"1", b"1"]
    assert researcher.get(f"run/{order['run']}")["log"] == "log"
    assert researcher.get(f"task/{task['id']}")["finished_at"] is not None


def test_runs_that_wait_for_children_lend_them_their_places(federation: Federation, researcher: Api) -> None:
    for _ in range(3):
        federation.make_task(researcher, 1)
    centrals = federation.work(1, capacity=2)["runs"]
    holding = [{"run": order["run"], "attempt": 1} for order in centrals]
    assert federation.work(1, capacity=0, holding=holding)["runs"] == []
    for order in centrals:
        federation.as_run(order).post("task", federation.task_body(1))
        federation.as_run(order).post("task", federation.task_body(1))
    lent = federation.work(1, capacity=0, holding=holding)["runs"]
    assert len(lent) == 2
    assert all(order["task"]["parent_id"] is not None for order in lent)
    holding += [{"run": order["run"], "attempt": 1} for order in lent]
    assert federation.work(1, capacity=0, holding=holding)["runs"] == []
    federation.finish(lent[0])
    assert len(federation.work(1, capacity=0, holding=holding)["runs"]) == 1


def test_claims_are_oldest_first_and_within_capacity(federation: Federation, researcher: Api) -> None:
    tasks = [federation.make_task(researcher)["id"] for _ in range(3)]
    first = federation.work(2, capacity=2)["runs"]
    assert [order["task"]["id"] for order in first] == tasks[:2]
    held = [{"run": order["run"], "attempt": 1} for order in first]
    assert federation.work(2, capacity=0, holding=held)["runs"] == []
    assert [order["task"]["id"] for order in federation.work(2, capacity=1, holding=held)["runs"]] == tasks[2:]


def test_a_lost_answer_is_repaired_by_the_next_call(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    again = federation.work(2, capacity=1)["runs"]
    assert [(one["run"], one["attempt"]) for one in again] == [(order["run"], 1)]


def test_lost_answers_give_no_more_than_there_is_room_for(federation: Federation, researcher: Api) -> None:
    for _ in range(4):
        federation.make_task(researcher)
    first = federation.work(2, capacity=2)["runs"]
    assert federation.work(2, capacity=0)["runs"] == []
    assert [one["run"] for one in federation.work(2, capacity=2)["runs"]] == [one["run"] for one in first]
    assert [one["run"] for one in federation.work(2, capacity=3)["runs"]][:2] == [one["run"] for one in first]


def test_a_server_restored_from_a_back_up_believes_the_node_that_has_the_run(
    federation: Federation, researcher: Api
) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    beside = create_engine(federation.server.database.engine.url, poolclass=NullPool)
    with beside.begin() as connection:
        connection.execute(update(Run).values(state=State.PENDING, attempt=0, started_at=None, lease_expires=None))
        connection.execute(update(Task).values(status="pending"))
    answer = federation.work(2, capacity=1, holding=[{"run": order["run"], "attempt": 1}])
    assert (answer["runs"], answer["stop"]) == ([], [])
    assert researcher.get(f"task/{task['id']}/status")["status"] == "initializing"
    federation.finish(order)
    assert researcher.get(f"task/{task['id']}/status")["status"] == "completed"


def test_a_node_hears_of_its_own_runs_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 2)
    assert federation.work(1)["runs"] == []
    elsewhere = federation.collaborate([1, 2], encrypted=False)
    other = federation.make_node(2, elsewhere)
    assert other.post("skerry/node/work", {"capacity": 1, "wait": 0})["runs"] == []


@pytest.mark.parametrize("attempt", [2, 99])
def test_a_stale_attempt_is_refused(federation: Federation, researcher: Api, attempt: int) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    node, run = federation.nodes[2], order["run"]
    calls = [
        ("POST", f"skerry/run/{run}/status", {"attempt": attempt, "status": "active"}),
        ("POST", f"skerry/run/{run}/token", {"attempt": attempt}),
        ("POST", f"skerry/run/{run}/finish", {"attempt": attempt, "status": "failed"}),
    ]
    for method, path, body in calls:
        node.refused(409, method, path, body)
    node.refused(409, "PUT", f"skerry/run/{run}/result", data=b"x", query_string={"attempt": attempt})


def test_an_unclaimed_run_takes_no_report(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    run = researcher.get("run", task_id=task["id"])["data"][0]["id"]
    federation.nodes[2].refused(409, "POST", f"skerry/run/{run}/status", {"attempt": 1, "status": "active"})


def test_another_node_can_not_report(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 2)
    order = federation.claim(2)
    body = {"attempt": 1, "status": "completed", "result": plain(2)}
    federation.nodes[1].refused(401, "POST", f"skerry/run/{order['run']}/finish", body)
    federation.nodes[1].refused(401, "GET", f"skerry/run/{order['run']}/input")


def test_finishing_is_idempotent_and_final(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    federation.finish(order)
    assert federation.finish(order, result=plain("another")) == {"status": "completed"}
    assert federation.finish(order, by=federation.nodes[2], log="another") == {"status": "completed"}
    failed = {"attempt": 1, "status": "failed"}
    federation.nodes[2].refused(409, "POST", f"skerry/run/{order['run']}/finish", failed)
    run = researcher.get(f"run/{order['run']}")
    assert (run["status"], run["log"]) == ("completed", "log")
    assert base64.b64decode(researcher.get(f"result/{order['run']}")["result"]) == b"1"


def test_a_run_that_took_too_long(federation: Federation, researcher: Api, server: Server) -> None:
    task = federation.make_task(researcher, 1)
    central = federation.claim(1)
    child = federation.as_run(central).post("task", federation.task_body(2))
    order = federation.claim(2)
    path = f"skerry/run/{order['run']}/finish"
    for word in ("timed out", "timed out", "failed"):  # the last one is of a node that has lost the first answer
        assert federation.finish(order, word, by=federation.nodes[2]) == {"status": "failed"}
    for word in ("crashed", "killed by user"):
        federation.nodes[2].refused(409, "POST", path, {"attempt": 1, "status": word})
    with server.database.reading() as session:
        assert session.get_one(Run, order["run"]).state is State.TIMED_OUT
    run = federation.as_run(central).get(f"run/{order['run']}")
    assert (run["status"], run["reason"]) == ("failed", "It took longer than its node allows.")
    assert researcher.get(f"task/{child['id']}/status")["status"] == "failed"
    assert researcher.get(f"task/{task['id']}/status")["status"] == "initializing"
    assert federation.work(2, holding=[{"run": order["run"], "attempt": 1}])["stop"] == []


def test_a_parent_that_took_too_long_ends_its_children(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    central = federation.claim(1)
    child = federation.as_run(central).post("task", federation.task_body(2))
    federation.finish(central, "timed out")
    assert researcher.get(f"task/{child['id']}/status")["status"] == "killed by user"


def test_a_node_of_a_version_before_says_only_that_it_failed(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    federation.finish(order, "failed")
    run = researcher.get(f"run/{order['run']}")
    assert (run["status"], run["reason"]) == ("failed", None)
    path = f"skerry/run/{order['run']}/finish"
    federation.nodes[2].refused(409, "POST", path, {"attempt": 1, "status": "timed out"})


@pytest.mark.parametrize("word", ["pending", "initializing", "active", "timed", "TIME"])
def test_what_ends_no_run(federation: Federation, researcher: Api, word: str) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    path = f"skerry/run/{order['run']}/finish"
    federation.nodes[2].refused(400, "POST", path, {"attempt": 1, "status": word})
    assert researcher.get(f"run/{order['run']}")["status"] == "initializing"


def test_a_completed_run_needs_a_result(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    path = f"skerry/run/{order['run']}/finish"
    assert "result" in federation.nodes[2].refused(400, "POST", path, {"attempt": 1, "status": "completed"})
    body = {"attempt": 1, "status": "completed", "staged": True}
    assert "staged" in federation.nodes[2].refused(400, "POST", path, body)
    assert researcher.get(f"run/{order['run']}")["status"] == "initializing"


def test_a_staged_result(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    run, big = federation.as_run(order), bytes(300_000)
    path = f"skerry/run/{order['run']}/result"
    for content in (b"first try", bytes(100_000), big):
        answer = run.ask("PUT", path, data=content, query_string={"attempt": 1})
        assert (answer.status_code, answer.data) == (204, b"")
    researcher.refused(404, "GET", path)
    federation.finish(order, result=None, staged=True)
    assert researcher.ask("GET", path).data == big
    assert len(list(federation.server.settings.payload_folder.iterdir())) == 1


def test_a_staged_result_that_is_not_needed_leaves_no_file(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    federation.as_run(order).ask(
        "PUT", f"skerry/run/{order['run']}/result", data=bytes(100_000), query_string={"attempt": 1}
    )
    federation.finish(order, "failed")
    assert list(federation.server.settings.payload_folder.iterdir()) == []


def test_a_cut_off_upload_is_not_staged(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    run = federation.as_run(order)
    answer = run.ask(
        "PUT",
        f"skerry/run/{order['run']}/result",
        input_stream=io.BytesIO(b"short"),
        environ_overrides={"CONTENT_LENGTH": "5000"},
        query_string={"attempt": 1},
    )
    assert answer.status_code == 400
    body = {"attempt": 1, "status": "completed", "staged": True}
    run.refused(400, "POST", f"skerry/run/{order['run']}/finish", body)


def test_a_run_token_lives_as_long_as_its_run(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    run = federation.as_run(order)
    fresh = run.post(f"skerry/run/{order['run']}/token", {"attempt": 1})
    assert fresh["expires_in"] == 900
    assert run.get(f"task/{task['id']}")["id"] == task["id"]
    federation.finish(order)
    for path in (f"task/{task['id']}", "organization", f"skerry/run/{order['run']}/input"):
        run.refused(401, "GET", path)
    run.refused(401, "POST", f"skerry/run/{order['run']}/token", {"attempt": 1})


def test_a_run_speaks_for_itself_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1, 2)
    mine, other = federation.claim(1), federation.claim(2)
    run = federation.as_run(mine)
    run.refused(401, "POST", f"skerry/run/{other['run']}/finish", {"attempt": 1, "status": "failed"})
    run.refused(401, "POST", f"skerry/run/{other['run']}/token", {"attempt": 1})
    run.refused(401, "PUT", f"skerry/run/{other['run']}/result", data=b"x", query_string={"attempt": 1})


def test_a_child_and_its_result(federation: Federation, researcher: Api) -> None:
    parent = federation.make_task(researcher, 1)
    central = federation.claim(1)
    run = federation.as_run(central)
    child = run.post("task", federation.task_body(1, 2))
    assert (child["parent"]["id"], child["job_id"]) == (parent["id"], parent["id"])
    assert (child["init_org"]["id"], child["init_user"]["id"]) == (1, parent["init_user"]["id"])
    held = [{"run": central["run"], "attempt": 1}]
    for organization in (1, 2):
        [order] = federation.work(organization, holding=held if organization == 1 else [])["runs"]
        assert order["task"]["parent_uuid"] == parent["uuid"]
        federation.finish(order)
    assert run.get(f"skerry/task/{child['id']}/wait")["finished"]
    assert len(run.get("result", task_id=child["id"])["data"]) == 2
    assert researcher.get("task", parent_id=parent["id"])["data"][0]["id"] == child["id"]


def test_a_partial_run_reads_no_sibling(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1, 2)
    first, second = federation.claim(1), federation.claim(2)
    federation.finish(first)
    partial = federation.as_run(second)
    assert partial.get("result", task_id=task["id"])["data"] == []
    partial.refused(401, "GET", f"result/{first['run']}")


def test_a_run_sees_its_own_job_only(federation: Federation, researcher: Api) -> None:
    other = federation.make_task(researcher, 1)
    federation.finish(federation.claim(1))
    mine = federation.make_task(researcher, 1)
    run = federation.as_run(federation.claim(1))
    assert [task["id"] for task in run.get("task")["data"]] == [mine["id"]]
    for path in (f"task/{other['id']}", f"task/{other['id']}/status", f"skerry/task/{other['id']}/wait"):
        run.refused(401, "GET", path)
    assert run.get("run", task_id=other["id"])["data"] == []


def test_one_failure_does_not_fail_siblings(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1, 2)
    federation.finish(federation.claim(1), "crashed")
    progress = researcher.get(f"skerry/task/{task['id']}/wait")
    assert (progress["status"], progress["finished"]) == ("crashed", False)
    assert [run["status"] for run in progress["runs"]] == ["crashed", "pending"]
    federation.finish(federation.claim(2))
    progress = researcher.get(f"skerry/task/{task['id']}/wait")
    assert (progress["status"], progress["finished"]) == ("crashed", True)


def test_a_failed_parent_ends_its_descendants(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    central = federation.claim(1)
    child = federation.as_run(central).post("task", federation.task_body(2))
    order = federation.claim(2)
    grandchild = federation.as_run(order).post("task", federation.task_body(1, 2))
    federation.finish(central, "crashed")
    for task in (child, grandchild):
        assert researcher.get(f"task/{task['id']}/status")["status"] == "killed by user"
    work = federation.work(2, holding=[{"run": order["run"], "attempt": 1}])
    assert [stop["run"] for stop in work["stop"]] == [order["run"]]
    assert "parent" in work["stop"][0]["reason"]


def test_a_failed_child_does_not_end_its_parent(federation: Federation, researcher: Api) -> None:
    parent = federation.make_task(researcher, 1)
    run = federation.as_run(federation.claim(1))
    run.post("task", federation.task_body(2))
    federation.finish(federation.claim(2), "failed")
    assert researcher.get(f"task/{parent['id']}/status")["status"] == "initializing"


def test_a_failed_run_ends_its_own_children_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1, 2)
    first, second = federation.claim(1), federation.claim(2)
    child = federation.as_run(second).post("task", federation.task_body(2))
    federation.finish(first, "failed")
    assert researcher.get(f"task/{child['id']}/status")["status"] == "pending"


def test_killing_reaches_the_whole_tree(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1)
    central = federation.claim(1)
    child = federation.as_run(central).post("task", federation.task_body(2))
    researcher.post("kill/task", {"id": task["id"]})
    for one in (task, child):
        assert researcher.get(f"task/{one['id']}/status")["status"] == "killed by user"
    work = federation.work(1, holding=[{"run": central["run"], "attempt": 1}])
    assert work["stop"] == [{"run": central["run"], "attempt": 1, "reason": "killed by user"}]
    assert federation.work(2)["runs"] == []
    researcher.refused(400, "POST", "kill/task", {"id": task["id"]})


def test_what_kills_a_nodes_runs_kills_their_children_elsewhere(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    child = federation.as_run(federation.claim(1)).post("task", federation.task_body(2))
    federation.root.post("kill/node/tasks", {"id": federation.node_ids[1]})
    assert researcher.get(f"task/{child['id']}/status")["status"] == "killed by user"


def test_a_killed_runs_log_is_kept_when_it_comes(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    researcher.post("kill/task", {"id": task["id"]})
    node = federation.nodes[2]
    path = f"skerry/run/{order['run']}/finish"
    node.refused(409, "POST", path, {"attempt": 1, "status": "completed", "result": plain(1)})
    for log in ("so far", "later"):
        assert node.post(path, {"attempt": 1, "status": "killed by user", "log": log})["status"] == "killed by user"
    assert researcher.get(f"run/{order['run']}")["log"] == "so far"
    assert researcher.get(f"result/{order['run']}")["result"] is None


def test_who_may_kill(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    for role in ("Researcher", "Viewer", "Organization Admin", "Auditor"):
        federation.make_user(role).refused(401, "POST", "kill/task", {"id": task["id"]})
    federation.nodes[2].refused(401, "POST", "kill/task", {"id": task["id"]})
    federation.make_user("Collaboration Admin", 2).post("kill/task", {"id": task["id"]})


def test_a_run_whose_node_falls_silent_is_lost(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    federation.clock.turn(seconds=120 + 3599)
    federation.server.sweep()
    assert researcher.get(f"task/{task['id']}/status")["status"] == "initializing"
    federation.clock.turn(seconds=2)
    federation.server.sweep()
    run = researcher.get(f"run/{order['run']}")
    assert (run["status"], run["reason"]) == ("unknown error", "the node was not heard of any more")
    work = federation.work(2, holding=[{"run": order["run"], "attempt": 1}])
    assert [stop["run"] for stop in work["stop"]] == [order["run"]]
    federation.nodes[2].refused(
        409, "POST", f"skerry/run/{order['run']}/finish", {"attempt": 1, "status": "completed", "result": plain(1)}
    )


def test_a_silent_nodes_parent_and_its_child_both_end(federation: Federation, researcher: Api) -> None:
    """The parent's end is the child's, which the silence would have ended, too; and all else goes on."""
    federation.make_task(researcher, 2)
    parent = federation.claim(2)
    federation.as_run(parent).post("task", federation.task_body(2))
    other = federation.make_task(researcher, 2)
    [child, _] = federation.work(2, holding=[{"run": parent["run"], "attempt": 1}])["runs"]
    federation.clock.turn(seconds=120 + 3601)
    federation.server.sweep()
    ended = [researcher.get(f"run/{order['run']}") for order in (parent, child)]
    assert [run["status"] for run in ended] == ["unknown error", "killed by user"]
    assert "parent" in ended[1]["reason"]
    assert researcher.get(f"task/{other['id']}/status")["status"] == "unknown error"


def test_a_server_that_was_away_for_long_loses_no_run(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    federation.claim()
    federation.clock.turn(seconds=100_000)
    federation.server.begin()
    federation.server.sweep()
    assert federation.log_in("root").get(f"task/{task['id']}/status")["status"] == "initializing"
    federation.clock.turn(seconds=120 + 3601)
    federation.server.sweep()
    assert federation.log_in("root").get(f"task/{task['id']}/status")["status"] == "unknown error"


@pytest.mark.parametrize("seconds", [100_000, -100_000])
def test_a_clock_that_is_set_loses_no_run_and_delays_no_loss(
    federation: Federation, researcher: Api, seconds: int
) -> None:
    task = federation.make_task(researcher)
    federation.claim()
    steady = [0.0]
    sweeper = Sweeper(federation.server, lambda: steady[0])
    federation.clock.turn(seconds=seconds)
    sweeper.sweep()
    assert federation.log_in("root").get(f"task/{task['id']}/status")["status"] == "initializing"
    federation.clock.turn(seconds=120 + 3601)
    steady[0] += 120 + 3601
    sweeper.sweep()
    assert federation.log_in("root").get(f"task/{task['id']}/status")["status"] == "unknown error"


def test_holding_a_run_keeps_it(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    for _ in range(5):
        federation.clock.turn(seconds=3000)
        federation.work(2, holding=[{"run": order["run"], "attempt": 1}])
        federation.server.sweep()
    assert researcher.get(f"task/{task['id']}/status")["status"] == "initializing"


def test_nobody_waits_for_a_node_that_is_away(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    wait = f"skerry/task/{task['id']}/wait"
    assert not researcher.get(wait)["runs"][0]["node_online"]
    federation.work(2, capacity=0)
    assert researcher.get(wait)["runs"][0]["node_online"]
    federation.clock.turn(seconds=61)
    assert not researcher.get(wait)["runs"][0]["node_online"]
    federation.work(2, capacity=0)
    federation.nodes[2].post("skerry/node/leave", {})
    assert not researcher.get(wait)["runs"][0]["node_online"]
    assert researcher.get(f"node/{federation.node_ids[2]}")["status"] == "offline"


def test_a_node_that_takes_no_runs_gets_none_and_says_why(federation: Federation, researcher: Api) -> None:
    """Neither new ones, nor children of those that it holds, nor those whose answer it missed."""
    held, task = federation.make_task(researcher), federation.make_task(researcher)
    wait, node = f"skerry/task/{task['id']}/wait", f"node/{federation.node_ids[2]}"
    [first] = federation.work(2, capacity=1)["runs"]
    child = federation.make_task(federation.as_run(first), 2)
    holding = [{"run": first["run"], "attempt": 1}]
    seen = researcher.get(wait)["seen"]
    assert federation.work(2, capacity=1, refuses="sandbox")["runs"] == []
    assert federation.work(2, capacity=0, holding=holding, refuses="sandbox")["runs"] == []
    told = researcher.get(wait, seen=seen)
    assert (told["runs"][0]["node_refuses"], told["runs"][0]["node_online"]) == ("sandbox", True)
    assert researcher.get(node)["refuses"] == "sandbox"
    assert researcher.get(f"task/{held['id']}/status")["status"] == "initializing"
    [run] = federation.work(2, capacity=0, holding=holding)["runs"]
    assert run["task"]["id"] == child["id"]
    assert researcher.get(wait)["runs"][0]["node_refuses"] is None
    assert researcher.get(node)["refuses"] is None
    federation.work(2, capacity=0, refuses="records")
    federation.clock.turn(seconds=61)
    assert researcher.get(node)["refuses"] is None
    federation.work(2, capacity=0, refuses="starting")
    federation.nodes[2].post("skerry/node/leave", {})
    federation.work(2, capacity=0)
    assert researcher.get(node)["refuses"] is None
    assert "refuses" in federation.nodes[2].refused(400, "POST", "skerry/node/work", {"refuses": "no"})


def test_finished_jobs(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1)
    central = federation.claim(1)
    child = federation.as_run(central).post("task", federation.task_body(2))
    order, job = federation.claim(2), task["job_id"]
    assert federation.work(2, jobs=[job], holding=[{"run": order["run"], "attempt": 1}])["finished_jobs"] == []
    federation.finish(order)
    assert child["job_id"] == job
    assert federation.work(2, jobs=[job])["finished_jobs"] == []
    federation.finish(central)
    assert federation.work(2, jobs=[job, 4711])["finished_jobs"] == [job, 4711]


def test_a_deleted_task_is_stopped(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    researcher.delete(f"task/{task['id']}")
    work = federation.work(2, holding=[{"run": order["run"], "attempt": 1}], jobs=[task["job_id"]])
    assert work["stop"][0]["reason"] == "the task was deleted"
    assert work["finished_jobs"] == [task["job_id"]]
    later = federation.make_task(researcher)
    assert later["id"] > task["id"]
    assert federation.claim()["run"] > order["run"]


def test_an_own_end_is_no_stop(federation: Federation, researcher: Api) -> None:
    """The node that reported it is cleaning up: saying it again would make it ask again and again."""
    federation.make_task(researcher)
    order = federation.claim()
    federation.finish(order)
    assert federation.work(2, holding=[{"run": order["run"], "attempt": 1}])["stop"] == []


def test_a_run_reads_its_own_input_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1, 2)
    mine, other = federation.claim(1), federation.claim(2)
    run = federation.as_run(mine)
    assert run.ask("GET", f"skerry/run/{mine['run']}/input").data == b'{"method": "mean"}'
    run.refused(401, "GET", f"skerry/run/{other['run']}/input")


def held_back(federation: Federation, **report: Any) -> float | None:
    """For how long the answer to the node's call may be held back; None when it is given at once."""
    answer = federation.nodes[2].ask("POST", "skerry/node/work", {"capacity": 1, "wait": 20, **report})
    seconds = answer.headers.get(WAIT_HEADER)
    return float(seconds) if seconds is not None else None


def test_what_is_new_is_said_at_once_and_a_repeat_after_a_pause(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    assert held_back(federation) is None
    holding = [{"run": 1, "attempt": 1}]
    assert held_back(federation, holding=holding) == 20
    researcher.post("kill/task", {"id": task["id"]})
    assert held_back(federation, holding=holding) is None
    assert held_back(federation, holding=holding) == 1
    assert held_back(federation, holding=holding, jobs=[task["id"]]) == 1
    assert held_back(federation) == 20
    assert held_back(federation, holding=holding) is None


def test_nobody_waits_for_a_finished_job(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    federation.finish(federation.claim())
    assert held_back(federation, jobs=[task["id"]]) == 1
    federation.make_task(researcher)
    assert held_back(federation, jobs=[task["id"]]) is None


def test_a_node_without_room_sleeps_through_the_tasks_of_users(federation: Federation, researcher: Api) -> None:
    node, job = federation.node_ids[2], federation.make_task(researcher, 1)["job_id"]
    central, hub = federation.as_run(federation.claim(1)), federation.server.hub

    def ticket(capacity: int) -> Ticket:
        return hub.ticket(topics(node, Report(capacity, {}, [job])))

    full, free = ticket(0), ticket(1)
    federation.make_task(researcher, 2)
    assert (ticket(0) == full, ticket(1) == free) == (True, False)
    central.post("task", federation.task_body(2))
    assert ticket(0) != full


def test_a_wait_is_held_back_only_while_nothing_changed(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    path = f"skerry/task/{task['id']}/wait"

    def wait(seen: str) -> tuple[bool, str]:
        answer = researcher.ask("GET", path, query_string={"seen": seen, "timeout": 60})
        return WAIT_HEADER in answer.headers, answer.get_json()["seen"]

    held, first = wait("")
    assert not held
    assert wait(first) == (True, first)
    federation.finish(federation.claim())
    held, last = wait(first)
    assert (held, last != first) == (False, True)
    assert wait(last) == (False, last)


def test_a_claim_wakes_a_call_that_replaced_a_broken_one(federation: Federation, researcher: Api) -> None:
    """The broken call may have claimed after its successor had looked: nobody would hear of the run."""
    federation.make_task(researcher)
    topic = node_topic(federation.node_ids[2])
    ticket = federation.server.hub.ticket([topic])
    federation.claim()
    assert federation.server.hub.ticket([topic]) != ticket
    assert federation.work(2, capacity=1)["runs"]


def test_the_log_names_runs_and_keeps_secrets(
    federation: Federation, researcher: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    federation.make_task(researcher, organizations=[{"id": 2, "input": plain("canary-in")}])
    order = federation.claim()
    federation.finish(order, result=plain("canary-out"), log="canary-log")
    federation.anybody.ask("POST", "token/user", {"username": "root", "password": "canary-password"})
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("skerry"))
    assert text.count(f"run {order['run']} of task") == 2
    for secret in ("canary", plain("canary-in"), plain("canary-out"), order["token"], researcher.token):
        assert str(secret) not in text


def test_a_wait_until_the_end_hears_of_nothing_else(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    path = f"skerry/task/{task['id']}/wait"

    def ask() -> tuple[bool, dict]:
        answer = researcher.ask("GET", path, query_string={"until": "finished", "timeout": 60})
        return WAIT_HEADER in answer.headers, json.loads(answer.headers.get(TICKET_HEADER, "{}"))

    held, ticket = ask()
    order = federation.claim()
    assert (held, ask()) == (True, (True, ticket))
    federation.finish(order)
    assert not ask()[0]
    assert researcher.ask("GET", path, query_string={"until": "changed"}).status_code == 400
