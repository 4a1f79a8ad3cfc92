"""Lists as the vantage6 dialect has them: pages, links, headers, filters, orders, relations; and their cost."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_federation import PASSWORD, Api, Federation
from sqlalchemy import create_engine, event, select, text

from skerry_server import counting
from skerry_server.doors.handling import Call
from skerry_server.doors.vantage6 import paging
from skerry_server.models import Task

pytestmark = pytest.mark.unit


def test_pages_links_and_headers(federation: Federation) -> None:
    answer = federation.root.ask("GET", "rule", query_string={"per_page": "30", "page": "2", "scope": "global"})
    assert answer.get_json()["links"] == {
        "first": "/api/rule?per_page=30&scope=global&page=1",
        "last": "/api/rule?per_page=30&scope=global&page=2",
        "previous": "/api/rule?per_page=30&scope=global&page=1",
        "self": "/api/rule?per_page=30&scope=global&page=2",
    }
    assert answer.headers["total-count"] == "32"
    assert "</api/rule?per_page=30&scope=global&page=1>; rel=first,<" in answer.headers["Link"]
    assert answer.headers["access-control-expose-headers"] == "total-count, Link"
    assert len(answer.get_json()["data"]) == 2


def test_a_long_list_is_compressed_for_who_takes_it_so(federation: Federation) -> None:
    plain = federation.root.ask("GET", "rule")
    packed = federation.root.ask("GET", "rule", environ_base=_taking("deflate, gzip;q=0.5"))
    refused = federation.root.ask("GET", "rule", environ_base=_taking("gzip;q=0"))
    assert json.loads(gzip.decompress(packed.data)) == plain.get_json() == refused.get_json()
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.data) < len(plain.data) // 3
    assert "Accept-Encoding" in plain.headers["Vary"]


def test_a_list_of_megabytes_is_compressed_piece_by_piece(federation: Federation, researcher: Api) -> None:
    for _ in range(30):
        spoken = base64.b64encode(os.urandom(30_000).hex().encode()).decode()
        federation.make_task(researcher, organizations=[{"id": 2, "input": spoken}])
    plain = researcher.ask("GET", "run", query_string={"per_page": 30})
    packed = researcher.ask("GET", "run", query_string={"per_page": 30}, environ_base=_taking("gzip"), buffered=False)
    pieces = list(packed.iter_encoded())
    assert json.loads(gzip.decompress(b"".join(pieces))) == plain.get_json()
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Length" not in packed.headers
    assert max(map(len, pieces)) < 1 << 20 < sum(map(len, pieces)) < len(plain.data) * 0.8


def test_what_is_short_or_gives_a_secret_is_not_compressed(federation: Federation) -> None:
    short = federation.root.ask("GET", "version", environ_base=_taking("gzip"))
    login = {"username": "root", "password": PASSWORD}
    token = federation.root.ask("POST", "token/user", login, environ_base=_taking("gzip"))
    assert [one.headers.get("Content-Encoding") for one in (short, token)] == [None, None]
    assert token.status_code == 200


def _taking(encodings: str) -> dict[str, str]:
    return {"HTTP_ACCEPT_ENCODING": encodings}


def test_the_links_lead_through_everything_once(federation: Federation) -> None:
    path, seen = "/api/rule", []
    while path is not None:
        page = federation.root.ask("GET", path.removeprefix("/api/")).get_json()
        seen += [rule["id"] for rule in page["data"]]
        path = page["links"].get("next")
    assert len(seen) == len(set(seen)) == 89


def test_no_rows(federation: Federation, researcher: Api) -> None:
    answer = researcher.get("task")
    assert answer["data"] == []
    assert "last" not in answer["links"]
    assert "next" not in answer["links"]
    assert researcher.get("task", page=7)["data"] == []


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "per_page=0", "per_page=1e9", "sort=password", "include=,", "page=-1"]
)
def test_bad_paging(federation: Federation, query: str) -> None:
    answer = federation.root.ask("GET", f"user?{query}")
    assert answer.status_code == (200 if "include" in query else 400)


@pytest.mark.parametrize(
    "path", ["organization?name", "node?ip", "task?image", "user?email", "role?description", "skerry/audit?actor"]
)
def test_a_filter_with_a_nul_is_refused_by_its_name(federation: Federation, path: str) -> None:
    message = federation.root.refused(400, "GET", f"{path}=a%00b")
    assert message == f"Query is incorrect: {path.partition('?')[2]}: A NUL character is not allowed."


def test_a_backslash_in_a_filter_stands_for_itself(federation: Federation) -> None:
    made = [federation.root.post("organization", {"name": name})["id"] for name in ("a\\", "a\\%b", "a%b")]

    def ids(pattern: str) -> list[int]:
        return [one["id"] for one in federation.root.get("organization", name=pattern)["data"]]

    assert ids("a\\") == made[:1]
    assert ids("%\\") == made[:1]
    assert ids("a\\%") == made[:2]
    assert ids("a_b") == made[2:]
    assert ids("\\") == []


def test_orders(federation: Federation) -> None:
    names = [one["name"] for one in federation.root.get("organization", sort="-name")["data"]]
    assert names == sorted(names, reverse=True)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("task", "name description image status created_at finished_at job_id parent_id study_id init_user_id"),
        ("run", "status assigned_at started_at finished_at task_id organization_id node_id"),
        ("result", "id task_id"),
        ("user", "username firstname lastname email last_seen organization_id"),
        ("node", "name ip last_seen organization_id collaboration_id"),
        ("organization", "name country domain address1 address2 zipcode"),
        ("collaboration", "name encrypted"),
        ("study", "name collaboration_id"),
        ("role", "name description organization_id"),
        ("rule", "name operation scope"),
        ("algorithmstore", "name url"),
    ],
)
def test_what_lists_can_be_sorted_by(federation: Federation, researcher: Api, path: str, names: str) -> None:
    federation.make_task(researcher)
    for name in names.split():
        federation.root.get(path, sort=f"-{name},id")


def test_all_rules_on_one_page(federation: Federation) -> None:
    assert len(federation.root.get("rule", no_pagination=1)["data"]) == 89


def test_tasks_are_newest_first_and_filtered(federation: Federation, researcher: Api) -> None:
    one = federation.make_task(researcher, 1, name="first", description="of two", databases=[{"label": "age_x"}])
    two = federation.make_task(researcher, 1, 2, name="second")

    def ids(**query: Any) -> list[int]:
        return [task["id"] for task in researcher.get("task", **query)["data"]]

    assert ids() == [two["id"], one["id"]]
    assert ids(name="fir%") == [one["id"]]
    assert ids(description="%two") == [one["id"]]
    assert ids(image="nothing") == []
    assert ids(job_id=two["job_id"]) == [two["id"]]
    assert ids(collaboration_id=federation.collaboration, sort="id") == [one["id"], two["id"]]
    assert ids(init_org_id=2) == []
    assert ids(database="age_x") == [one["id"]]
    assert ids(database="agexx") == []
    assert ids(is_user_created=0) == []
    assert ids(status="pending") == [two["id"], one["id"]]
    federation.finish(federation.claim(1), "crashed")
    assert ids(status="crashed") == [one["id"]]
    researcher.refused(400, "GET", "task", query_string={"status": "nonsense"})


def test_tasks_of_a_database_are_those_that_name_its_label(federation: Federation, researcher: Api) -> None:
    """Not those that have the word elsewhere in their databases; and each once."""
    for databases in (
        [{"label": "age"}, {"label": "age", "query": "q"}],
        [{"label": "ages", "query": "age", "arguments": {"label": "age", "x": ["age"]}}],
        [{"label": "height"}, {"label": "age"}],
        [],
    ):
        federation.make_task(researcher, databases=databases)
    found = researcher.ask("GET", "task", query_string={"database": "age", "sort": "id", "per_page": 1})
    assert [task["id"] for task in found.json["data"]] == [1]
    assert found.headers["total-count"] == "2"
    assert [task["id"] for task in researcher.get("task", database="age")["data"]] == [3, 1]
    assert [task["id"] for task in researcher.get("task", database="age", page=2, per_page=1)["data"]] == [1]
    assert researcher.get("task", database="query")["data"] == []
    researcher.delete("task/1")
    assert [task["id"] for task in researcher.get("task", database="age")["data"]] == [3]


@pytest.mark.parametrize(
    "name", ["init_org_id", "init_user_id", "collaboration_id", "study_id", "parent_id", "run_id", "store_id"]
)
def test_tasks_of_what_there_is_not(researcher: Api, name: str) -> None:
    assert f"{name}: There is no" in researcher.refused(400, "GET", "task", query_string={name: 999})


def test_tasks_of_a_collaboration_or_study_of_others(federation: Federation, researcher: Api) -> None:
    there = federation.collaborate([2, 3], encrypted=False)
    body = {"name": "theirs", "collaboration_id": there, "organization_ids": [2, 3]}
    study = federation.root.post("study", body)["id"]
    researcher.refused(401, "GET", "task", query_string={"collaboration_id": there})
    researcher.refused(401, "GET", "task", query_string={"study_id": study})
    assert federation.root.get("task", study_id=study)["data"] == []


def test_include(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1, 2)
    federation.finish(federation.claim(1))
    plain = researcher.get(f"task/{task['id']}")
    assert plain["runs"] == f"/api/run?task_id={task['id']}"
    for query in ("include=runs,results", "include=runs&include=results"):
        full = researcher.get(f"task/{task['id']}?{query}")
        assert [run["status"] for run in full["runs"]] == ["completed", "pending"]
        assert [one["result"] for one in full["results"]] == ["MQ==", None]
    [run, _] = researcher.get("run", include="task", task_id=task["id"], sort="id")["data"]
    assert run["task"]["image"] == "example/mean"
    assert "runs" not in run["task"]
    nested = researcher.get(f"collaboration/{federation.collaboration}", include="organizations")
    assert [one["id"] for one in nested["organizations"]] == [1, 2]


def test_the_shape_of_a_task(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    assert set(task) == {
        *("id", "uuid", "name", "description", "image", "job_id", "created_at", "status", "finished_at"),
        *("collaboration", "study", "algorithm_store", "init_org", "init_user", "parent", "children", "runs"),
        *("results", "databases"),
    }
    link = {"id": 1, "link": "/api/organization/1", "methods": ["DELETE", "GET", "PATCH"]}
    assert task["init_org"] == link
    assert task["children"] == f"/api/task?parent_id={task['id']}"


def test_the_shape_of_a_run_and_a_result(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    [run] = researcher.get("run")["data"]
    assert set(run) - {"reason", "attempt"} == {
        *("id", "input", "status", "log", "assigned_at", "started_at", "finished_at", "cleanup_at"),
        *("blob_storage_used", "organization", "task", "results", "node", "ports"),
    }
    assert set(run["node"]) == {"id", "ip", "status", "name"}
    [result] = researcher.get("result")["data"]
    assert set(result) == {"id", "result", "cleanup_at", "blob_storage_used", "run", "task"}


def test_runs_filters(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1, 2)
    federation.finish(federation.claim(1))

    def organizations(**query: Any) -> list[int]:
        return [run["organization"]["id"] for run in researcher.get("run", sort="id", **query)["data"]]

    assert organizations() == [1, 2]
    assert organizations(state="open") == [2]
    assert organizations(node_id=federation.node_ids[1]) == [1]
    assert organizations(organization_id=2, task_id=task["id"]) == [2]
    assert organizations(finished_from="2020-01-01T00:00:00") == [1]
    assert organizations(finished_till="2020-01-01") == []
    researcher.refused(400, "GET", "run", query_string={"assigned_from": "yesterday"})


def test_a_tasks_results_come_all_at_once(federation: Federation) -> None:
    organizations = [1, *(federation.root.post("organization", {"name": f"many {n}"})["id"] for n in range(14))]
    collaboration = federation.collaborate(organizations, encrypted=False)
    for organization in organizations:
        federation.make_node(organization, collaboration)
    task = federation.make_task(federation.make_user(), *organizations, collaboration_id=collaboration)
    for path in ("run", "result"):
        answer = federation.make_user().get(path, task_id=task["id"])
        assert len(answer["data"]) == 15
        assert "next" not in answer["links"]


def test_booleans_mean_what_they_say(federation: Federation) -> None:
    federation.collaborate([1], encrypted=True)
    for word, encrypted in (("False", False), ("0", False), ("True", True), ("1", True)):
        data = federation.root.get("collaboration", encrypted=word)["data"]
        assert {one["encrypted"] for one in data} == {encrypted}


def test_delete_dependents_false_deletes_nothing(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    path = f"collaboration/{federation.collaboration}"
    for query in ({}, {"delete_dependents": "False"}, {"delete_dependents": "0"}):
        message = federation.root.refused(400, "DELETE", path, query_string=query)
        assert "task" in message
        assert "node" in message
    federation.root.delete(path, delete_dependents="True")
    federation.root.refused(404, "GET", path)
    assert federation.root.get("node")["data"] == []
    assert federation.root.get("task")["data"] == []


@pytest.mark.parametrize("path", ["task", "task?include=runs,results", "run", "run?include=task", "result", "node"])
def test_a_list_costs_the_same_however_long(
    federation: Federation, researcher: Api, statements: Callable[[], int], path: str
) -> None:
    def cost() -> int:
        before = statements()
        researcher.get(path)
        return statements() - before

    federation.make_task(researcher, 1, 2)
    few = cost()
    for _ in range(8):
        federation.make_task(researcher, 1, 2)
    assert cost() <= few + 1
    assert few < 14


@pytest.mark.parametrize("include", ["runs", "runs,results"])
def test_a_task_costs_the_same_however_many_runs_it_has(
    federation: Federation, researcher: Api, statements: Callable[[], int], include: str
) -> None:
    def cost(task: int) -> int:
        before = statements()
        assert researcher.get(f"task/{task}", include=include)["runs"]
        return statements() - before

    few, many = federation.make_task(researcher), federation.make_task(researcher, 1, 2)
    assert cost(many["id"]) == cost(few["id"])


def test_deleting_costs_the_same_however_much_there_is(federation: Federation, statements: Callable[[], int]) -> None:
    """And the audit trail names each row, the runs of a task before it, and children before their parents."""

    def job(children: int) -> tuple[int, list[str]]:
        top = federation.make_task(federation.root)
        run = federation.as_run(federation.claim())
        below = [federation.make_task(run)["id"] for _ in range(children)]
        before = statements()
        federation.root.delete(f"task/{top['id']}")
        spent = statements() - before
        federation.root.refused(404, "GET", f"task/{top['id']}")
        deeds = federation.root.get("skerry/audit", action="task.delete")["data"]
        assert [deed["object"]["id"] for deed in deeds[-children - 1 :]] == [*sorted(below, reverse=True), top["id"]]
        return spent

    assert job(6) <= job(1) + 2


def test_creating_and_claiming_cost_little(
    federation: Federation, researcher: Api, statements: Callable[[], int]
) -> None:
    before = statements()
    federation.make_task(researcher, 1, 2)
    assert statements() - before <= 15
    before = statements()
    federation.work(2)
    assert statements() - before <= 17
    before = statements()
    federation.work(2, holding=[{"run": 2, "attempt": 1}], capacity=0)
    assert statements() - before <= 10
    before = statements()
    federation.nodes[2].post("skerry/run/2/status", {"attempt": 1, "status": "active"})
    assert statements() - before <= 12


def test_claiming_many_runs_costs_as_claiming_one(
    federation: Federation, researcher: Api, statements: Callable[[], int]
) -> None:
    def cost() -> int:
        before = statements()
        federation.work(2)
        return statements() - before

    federation.make_task(researcher)
    one = cost()
    for _ in range(8):
        federation.make_task(researcher)
    assert cost() <= one + 2, "the tasks are locked, looked at and changed together"


def test_rules_that_reach_in_different_ways(federation: Federation, researcher: Api) -> None:
    """Which runs somebody sees is a condition on the run alone, so that a count needs no join."""
    federation.make_task(researcher, 1, 2)
    assert len(federation.make_user("Viewer").get("run")["data"]) == 2
    assert federation.make_user("Viewer", 3).get("run")["data"] == []


@pytest.fixture
def nine_tasks(federation: Federation, researcher: Api) -> None:
    for _ in range(9):
        federation.make_task(researcher)


def test_a_long_list_is_not_counted_to_its_end(
    nine_tasks: None, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the statistics say may be wrong; that there is a next page, and that there is none, is right."""
    monkeypatch.setattr(counting, "COUNTED", 3)
    first = researcher.ask("GET", "task", query_string={"per_page": 4})
    assert int(first.headers["total-count"]) >= 5
    pages, path = 1, first.get_json()["links"]["next"]
    while path is not None:
        found = researcher.ok(researcher.client.get(path, headers={"Authorization": f"Bearer {researcher.token}"}))
        path, pages = found["links"].get("next"), pages + 1
    assert pages == 3
    last = researcher.ask("GET", "task", query_string={"per_page": 4, "page": 3})
    assert (last.headers["total-count"], len(last.get_json()["data"])) == ("9", 1)


def test_of_far_too_many_rows_nothing_is_counted(
    nine_tasks: None, federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is a next page is right all the same."""
    monkeypatch.setattr(counting, "COUNTED", 0)
    for query in ({"image": "%"}, {"collaboration_id": federation.collaboration}, {}):
        answer = researcher.ask("GET", "task", query_string={"per_page": 2, **query})
        assert int(answer.headers["total-count"]) >= 3, query
        assert "next" in answer.get_json()["links"]
    assert researcher.get("task", image="none", per_page=2)["links"].keys() == {"self"}


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_how_long_a_long_list_is_is_remembered_for_a_hundred_times_as_long_as_counting_took(
    nine_tasks: None, federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for whoever may see as much of it; a short one is counted each time."""
    monkeypatch.setattr(counting, "COUNTED", 4)
    ticks = iter(range(0, 10_000, 2))
    now = [0.0]

    def clock() -> float:
        return now[0] + next(ticks) / 1000  # so counting takes 2 ms, and is remembered for 0.2 s

    federation.server.counter._clock = clock

    def length(caller: Api, **query: Any) -> int:
        return int(caller.ask("GET", "task", query_string={"per_page": 2, **query}).headers["total-count"])

    assert length(researcher) == 9
    federation.make_task(researcher)
    assert (length(researcher), length(researcher, per_page=3)) == (9, 9)
    assert length(federation.make_user("Viewer", 3)) == 0
    assert length(federation.root, collaboration_id=federation.collaboration) == 10
    assert length(researcher, is_user_created=1) == 10, "another list"
    now[0] += 1
    assert length(researcher) == 10
    monkeypatch.setattr(counting, "_DEAR", 10**9)
    now[0] += 1
    federation.make_task(researcher)
    assert length(researcher) == 11
    federation.make_task(researcher)
    now[0] += 59
    assert length(researcher) == 11
    now[0] += 2
    assert length(researcher) == 12, "and for a minute at most"
    monkeypatch.setattr(counting, "COUNTED", 20)
    federation.make_task(researcher)
    assert length(researcher) == 13


def test_a_page_behind_the_last_one_adds_nothing(nine_tasks: None, researcher: Api) -> None:
    behind = researcher.ask("GET", "task", query_string={"per_page": 4, "page": 7})
    assert (behind.headers["total-count"], behind.get_json()["data"]) == ("9", [])
    assert behind.get_json()["links"]["last"].endswith("page=3")


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_of_lists_that_were_counted_the_last_ones_are_remembered(
    nine_tasks: None, federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNTED", 1)
    monkeypatch.setattr(counting, "_LISTS", 3)
    for number in range(6):
        assert researcher.get("task", per_page=2, image="%" * (number + 1))["links"]["last"].endswith("page=5")
    assert len(federation.server.counter._known) == 3


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_a_span_of_time_is_looked_up_wherever_its_runs_lie(
    federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would go through all runs for the newest in it."""
    made = [federation.make_task(researcher)["id"] for _ in range(4)]
    found, plan = planned(federation, researcher, "EXPLAIN QUERY PLAN", "run", assigned_till="2999-01-01", sort="-id")
    assert any("ix_run_assigned_at" in line for line in plan), plan
    assert [run["task"]["id"] for run in found.json["data"]] == made[::-1]
    assert researcher.get("run", assigned_till="2999-01-01", per_page=3)["links"]["next"].endswith("page=2")
    assert researcher.get("run", assigned_from="2999-01-01")["data"] == []
    monkeypatch.setattr(counting, "COUNTED", 3)
    found, plan = planned(federation, researcher, "EXPLAIN QUERY PLAN", "run", assigned_till="2999-01-01", sort="-id")
    assert not any("TEMP B-TREE" in line for line in plan), "of many, the first are found soon in their order"
    assert [run["task"]["id"] for run in found.json["data"]] == made[::-1]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", ["name", "image", "description"])
def test_the_beginning_of_a_text_is_looked_up_wherever_its_tasks_lie(
    federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """SQLite would compare all tasks of the collaboration; where many match, it does: the first are found soon."""
    made = [federation.make_task(researcher, **{column: f"Old {n}"})["id"] for n in range(4)]
    federation.make_task(researcher, **{column: "new"})
    for pattern, ids in {"old%": made[::-1], "Old _": made[::-1], "oLD 2": [made[2]], "Old 4": []}.items():
        monkeypatch.setattr(counting, "COUNTED", 4)
        found, plan = planned(federation, researcher, "EXPLAIN QUERY PLAN", **{column: pattern})
        assert any(f"ix_task_{column}_folded" in line for line in plan), plan
        assert [task["id"] for task in found.json["data"]] == ids
        monkeypatch.setattr(counting, "COUNTED", -1)
        found, plan = planned(federation, researcher, "EXPLAIN QUERY PLAN", **{column: pattern})
        assert not any("TEMP B-TREE" in line for line in plan), plan
        assert [task["id"] for task in found.json["data"]] == ids
    assert len(researcher.get("task", **{column: "%d %"})["data"]) == 4


_MANY = """
INSERT INTO task (uuid, creator, fingerprint, name, image, collaboration_id, init_org_id, databases, format, status,
    created_at)
SELECT n::text, 'user:1', '', CASE WHEN n <= 250 THEN 'old ' ELSE 'new ' END || n, 'image', :collaboration, 1, '[]',
    'plain', 'pending', now() FROM generate_series(1, 5000) n
"""


def fill_with_names(federation: Federation, names: list[str]) -> None:
    """Once."""
    row = "('x' || :n, 'user:1', '', :name, 'image', :collaboration, 1, '[]', 'plain', 'pending', '2020-01-01')"
    unwatched = create_engine(federation.server.database.engine.url)
    with unwatched.begin() as connection:
        if not connection.scalar(text("SELECT count(*) FROM task")):
            rows = [{"n": n, "name": name, "collaboration": federation.collaboration} for n, name in enumerate(names)]
            connection.execute(text(f"{_MANY.partition('SELECT')[0]} VALUES {row}"), rows)
    unwatched.dispose()


_EDGES = ["a", "Z", "z", "@", "[", "`", "{", "_", "\\", "é", "É", "\ud7ff", "\ue000", "\uffff", "\U0010ffff", "0", " "]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@given(start=st.lists(st.sampled_from(_EDGES), min_size=1, max_size=2).map("".join))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_finds_all_that_begins_so(federation: Federation, start: str) -> None:
    """As SQLite's LIKE does, which has no regard to the case of ASCII letters."""
    fill_with_names(federation, [a + b + c for a in _EDGES for b in [*_EDGES, ""] for c in ("", "z", "\U0010ffff")])
    call = SimpleNamespace(session=SimpleNamespace(get_bind=lambda: federation.server.database.engine))
    pattern = start.replace("_", "") + "%"
    found = paging.beginning(cast("Call", call), Task.name, pattern) or []
    with federation.server.database.reading() as session:
        plain = set(session.scalars(select(Task.name).where(paging.like(Task.name, pattern))))
        assert plain == set(session.scalars(select(Task.name).where(paging.like(Task.name, pattern), *found)))


def test_a_later_page_has_the_rows_that_follow(federation: Federation, researcher: Api) -> None:
    made = [federation.make_task(researcher)["id"] for _ in range(5)]
    orders = {("run", "task_id"): made, ("run", "-task_id"): made[::-1], ("task", "image,id"): made}
    for (what, sort), ids in orders.items():
        pages = [researcher.get(what, sort=sort, per_page=2, page=number)["data"] for number in (1, 2, 3)]
        assert [row["task"]["id"] if what == "run" else row["id"] for page in pages for row in page] == ids


@pytest.mark.parametrize("engine_name", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True)
def test_a_text_is_looked_up_wherever_its_tasks_lie(federation: Federation, researcher: Api) -> None:
    """PostgreSQL takes them to be spread evenly: going through the newest it would pass over all the others first."""
    unwatched = create_engine(federation.server.database.engine.url)
    with unwatched.begin() as connection:
        connection.execute(text(_MANY), {"collaboration": federation.collaboration})
        connection.execute(text("ANALYZE task"))
    unwatched.dispose()
    found, plan = planned(federation, researcher, "EXPLAIN", name="old%")
    assert any("ix_task_name_pattern" in line for line in plan), plan
    assert [task["name"] for task in found.json["data"]] == [f"old {n}" for n in range(250, 240, -1)]
    assert found.headers["total-count"] == "250"
    assert [task["name"] for task in researcher.get("task", name="old%", sort="id", page=25)["data"]][-1] == "old 250"
    assert len(researcher.get("task", name="new%", page=475)["data"]) == 10


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@pytest.mark.parametrize("query", [{}, {"sort": "id"}, {"sort": "-id", "per_page": 1}])
def test_tasks_of_a_database_lie_in_order(federation: Federation, researcher: Api, query: dict[str, Any]) -> None:
    """SQLite need not sort all those of a label for a page of them."""
    made = [federation.make_task(researcher, databases=[{"label": "age"}])["id"] for _ in range(2)]
    found, plan = planned(federation, federation.root, "EXPLAIN QUERY PLAN", database="age", **query)
    order = made if query.get("sort") == "id" else made[::-1]
    assert [task["id"] for task in found.json["data"]] == order[: query.get("per_page")]
    assert not [line for line in plan if "ORDER BY" in line], plan


def planned(
    federation: Federation, caller: Api, explain: str, what: str = "task", **query: Any
) -> tuple[Any, list[str]]:
    """The answer to a list, of tasks unless told, and how the database finds its rows."""
    engine, asked = federation.server.database.engine, list[tuple[str, Any]]()

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    found = caller.ask("GET", what, query_string=query)
    event.remove(engine, "before_cursor_execute", note)
    [listed] = [one for one in asked if one[0].startswith(f"SELECT {what}.") and "LIMIT" in one[0]]
    with engine.connect() as connection:
        return found, [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {listed[0]}", listed[1])]
