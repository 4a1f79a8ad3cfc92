"""Deleting with what hangs on it, members of studies and collaborations, roles, ports, addresses, columns."""

from __future__ import annotations

from typing import Any

import pytest
from server_federation import Api, Federation, plain

pytestmark = pytest.mark.unit


def ids(rows: Any) -> list[int]:
    return [row["id"] for row in rows]


def test_deleting_an_organization(federation: Federation) -> None:
    mine = federation.make_user("Researcher", 2)
    theirs = federation.make_task(federation.make_user(), 1, 2)
    federation.make_task(mine, 1, 2)
    federation.finish(federation.claim(1))
    for query in ({}, {"delete_dependents": "False"}):
        message = federation.root.refused(400, "DELETE", "organization/2", query_string=query)
        assert "user, node, task, run" in message
    federation.root.delete("organization/2", delete_dependents=1)
    federation.root.refused(404, "GET", "organization/2")
    mine.refused(401, "GET", "task")
    assert ids(federation.root.get("task")["data"]) == [theirs["id"]]
    assert [run["organization"]["id"] for run in federation.root.get("run")["data"]] == [1]
    assert federation.root.post("organization", {"name": "organization 2"})["id"] > 3


def test_nobody_deletes_the_organization_they_belong_to(federation: Federation) -> None:
    federation.root.refused(400, "DELETE", "organization/1", query_string={"delete_dependents": 1})
    federation.make_user("Collaboration Admin").refused(401, "DELETE", "organization/3")
    federation.root.refused(404, "DELETE", "organization/99")
    federation.root.delete("organization/3")


def test_members_of_a_study(federation: Federation) -> None:
    where = {"collaboration_id": federation.collaboration}
    study = federation.root.post("study", {"name": "one", "organization_ids": [1], **where})
    path = f"study/{study['id']}/organization"
    assert ids(federation.root.post(path, {"id": 2})) == [1, 2]
    assert "not in collaboration" in federation.root.refused(400, "POST", path, {"id": 3})
    assert ids(federation.root.ok(federation.root.ask("DELETE", path, {"id": 1}))) == [2]
    federation.make_user("Viewer").refused(401, "POST", path, {"id": 1})
    federation.root.ask("DELETE", f"collaboration/{federation.collaboration}/organization", {"id": 2})
    assert federation.root.get(f"study/{study['id']}", include="organizations")["organizations"] == []


def test_a_node_moves_when_it_has_nothing_to_do(federation: Federation) -> None:
    other = federation.collaborate([2, 3], encrypted=False)
    node, path = federation.node_ids[2], f"collaboration/{other}/node"
    task = federation.make_task(federation.make_user(), 2)
    assert "runs to do" in federation.root.refused(400, "POST", path, {"id": node})
    federation.root.post("kill/task", {"id": task["id"]})
    federation.make_user("Organization Admin", 2).refused(401, "POST", path, {"id": node})
    assert ids(federation.root.post(path, {"id": node})) == [node]
    federation.nodes[2].refused(401, "GET", "node")
    federation.root.refused(400, "POST", f"collaboration/{other}/node", {"id": federation.node_ids[1]})
    federation.root.refused(400, "DELETE", f"collaboration/{federation.collaboration}/node", {"id": node})
    assert federation.root.ok(federation.root.ask("DELETE", path, {"id": node})) == []
    federation.root.refused(404, "GET", f"node/{node}")


def test_what_a_node_may_not_become(federation: Federation) -> None:
    path = f"node/{federation.node_ids[1]}"
    for field in ("collaboration_id", "organization_id"):
        assert field in federation.root.refused(400, "PATCH", path, {field: 1})


def test_killing_all_that_a_node_does(federation: Federation) -> None:
    researcher = federation.make_user()
    path, body = "kill/node/tasks", {"id": federation.node_ids[2]}
    assert "offline" in federation.root.refused(400, "POST", path, body)
    tasks = [federation.make_task(researcher, 2, name=f"task {n}") for n in "ab"]
    both = federation.make_task(researcher, 1, 2)
    federation.claim(2)
    researcher.refused(401, "POST", path, body)
    federation.make_user("Organization Admin").refused(401, "POST", path, body)
    federation.make_user("Organization Admin", 2).post(path, body)
    for task in tasks:
        assert researcher.get(f"task/{task['id']}/status") == {"status": "killed by user"}
    runs = researcher.get("run", task_id=both["id"], sort="id")["data"]
    assert [run["status"] for run in runs] == ["pending", "killed by user"]
    federation.root.refused(404, "POST", path, {"id": 99})


def test_changing_roles(federation: Federation) -> None:
    admin = federation.make_user("Organization Admin")
    rules = admin.get("rule", name="task", no_pagination=1)["data"]
    own = next(rule["id"] for rule in rules if (rule["operation"], rule["scope"]) == ("VIEW", "ORGANIZATION"))
    everywhere = next(rule["id"] for rule in rules if (rule["operation"], rule["scope"]) == ("VIEW", "GLOBAL"))
    role = admin.post("role", {"name": "watcher", "rules": []})
    path = f"role/{role['id']}"
    assert admin.patch(path, {"name": "looker", "description": None, "rules": None})["name"] == "looker"
    assert ids(admin.post(f"{path}/rule/{own}")) == [own]
    admin.refused(401, "POST", f"{path}/rule/{everywhere}")
    admin.refused(401, "PATCH", path, {"rules": [everywhere]})
    admin.refused(404, "POST", f"{path}/rule/999")
    assert admin.ok(admin.ask("DELETE", f"{path}/rule/{own}")) == []
    assert "organization_id" in admin.refused(400, "PATCH", path, {"organization_id": 2})
    federation.root.post(f"{path}/rule/{everywhere}")
    admin.refused(401, "PATCH", path, {"name": "stronger than I"})
    federation.make_user("Organization Admin", 2).refused(401, "DELETE", path)


def test_default_roles_stay(federation: Federation) -> None:
    path = f"role/{federation.roles['Viewer']}"
    federation.root.refused(400, "PATCH", path, {"name": "mine"})
    federation.root.refused(400, "POST", f"{path}/rule/1")
    federation.root.refused(400, "DELETE", f"{path}/rule/1")
    federation.root.refused(400, "DELETE", path, query_string={"delete_dependents": 1})


def test_deleting_a_role_that_is_held(federation: Federation) -> None:
    role = federation.root.post("role", {"name": "watcher", "rules": []})
    user = {"username": "watching", "email": "w@example.org", "password": "Aa1-correct-horse", "roles": [role["id"]]}
    id_ = federation.root.post("user", user)["id"]
    assert ids(federation.root.get("role", collaboration_id=federation.collaboration)["data"]) == [role["id"]]
    federation.root.refused(400, "DELETE", f"role/{role['id']}", query_string={"delete_dependents": "False"})
    federation.root.delete(f"role/{role['id']}", delete_dependents=1)
    assert federation.root.get("role", user_id=id_)["data"] == []


@pytest.mark.parametrize(("query", "left"), [({"delete_dependents": "False"}, 1), ({"delete_dependents": "1"}, 0)])
def test_deleting_a_user(federation: Federation, query: dict[str, str], left: int) -> None:
    user = federation.make_user()
    me = user.post("token/user/validate")["user_id"]
    federation.make_task(user)
    federation.root.delete(f"user/{me}", **query)
    assert len(federation.root.get("task")["data"]) == left


def a_job(federation: Federation) -> tuple[dict[int, Api], dict[str, Any]]:
    """A run at 1 that has a child task at 1 and 2; each run has a port."""
    federation.make_task(federation.make_user(), 1)
    parent = federation.claim(1)
    central = federation.as_run(parent)
    child = federation.make_task(central, 1, 2)
    holding = [{"run": parent["run"], "attempt": parent["attempt"]}]
    orders = {1: federation.work(1, holding=holding)["runs"][0], 2: federation.claim(2)}
    for order, number in ((parent, 1), (orders[1], 1), (orders[2], 2)):
        body = {"run_id": order["run"], "attempt": order["attempt"], "port": 8888, "label": f"of {number}"}
        federation.nodes[number].post("port", body)
    return {0: central, **{number: federation.as_run(order) for number, order in orders.items()}}, child


@pytest.mark.parametrize(
    ("caller", "query", "expected"),
    [
        (1, {}, [(2, 1), (2, 2)]),
        (1, {"only_self": "1"}, [(2, 1)]),
        (1, {"only_siblings": "1"}, [(2, 2)]),
        (1, {"only_parent": "1"}, [(1, 1)]),
        (0, {"only_parent": "1"}, [(1, 1)]),
        (0, {"only_children": "1"}, [(2, 1), (2, 2)]),
        (0, {"include_children": "True"}, [(1, 1), (2, 1), (2, 2)]),
        (1, {"include_parent": "1"}, [(1, 1), (2, 1), (2, 2)]),
        (1, {"include_parent": "1", "only_self": "1"}, [(2, 1)]),
        (1, {"only_self": "False", "only_siblings": "0"}, [(2, 1), (2, 2)]),
        (1, {"label": "of 2"}, [(2, 2)]),
    ],
)
def test_addresses(federation: Federation, caller: int, query: dict[str, str], expected: list[Any]) -> None:
    runs, _ = a_job(federation)
    found = runs[caller].get("vpn/algorithm/addresses", **query)["addresses"]
    assert [(one["task_id"], one["organization_id"]) for one in found] == expected
    assert all(set(one) == {"port", "label", "ip", "organization_id", "task_id", "parent_id"} for one in found)


def test_one_only(federation: Federation) -> None:
    runs, _ = a_job(federation)
    query = {"only_self": "1", "only_parent": "1"}
    message = runs[1].refused(400, "GET", "vpn/algorithm/addresses", query_string=query)
    assert message == "You can only specify one of the only_<...> parameters!"
    federation.root.refused(401, "GET", "vpn/algorithm/addresses")


def test_ports(federation: Federation) -> None:
    researcher = federation.make_user()
    federation.make_task(researcher, 2)
    order, node = federation.claim(2), federation.nodes[2]
    body = {"run_id": order["run"], "attempt": order["attempt"], "port": 8888, "label": None}
    port = node.post("port", body)
    assert node.post("port", {**body, "label": "http"}) == {"id": port["id"], "port": 8888, "label": "http"}
    [run] = researcher.get("run", port=8888)["data"]
    assert run["ports"] == [{"id": port["id"], "port": 8888, "label": "http"}]
    assert researcher.get("run", port=8889)["data"] == []
    assert "attempt" in node.refused(400, "POST", "port", {"run_id": order["run"], "port": 1})
    node.refused(409, "POST", "port", {**body, "attempt": order["attempt"] + 1})
    federation.nodes[1].refused(401, "POST", "port", body)
    researcher.refused(401, "POST", "port", body)
    node.refused(400, "POST", "port", {**body, "port": 70_000})
    node.delete("port", run_id=order["run"], attempt=order["attempt"])
    assert researcher.get("run")["data"][0]["ports"] == []


def test_columns_are_asked_for_by_a_task(federation: Federation) -> None:
    body = {"collaboration_id": federation.collaboration, "db_label": "default", "sheet_name": "one", "query": None}
    body["organizations"] = [{"id": 2, "input": plain({"method": "column_headers"})}]
    task = federation.make_user().post("column", body)
    assert task["image"] == "ghcr.io/vantage6/algorithm-basics:latest"
    assert task["databases"] == [{"label": "default", "parameters": '{"sheet_name": "one"}'}]
    federation.make_user("Viewer").refused(401, "POST", "column", body)


def test_there_is_no_eduvpn(federation: Federation) -> None:
    assert "eduVPN" in federation.nodes[1].refused(404, "GET", "vpn")


def test_there_is_no_blob_store(federation: Federation) -> None:
    assert federation.root.get("blobstream/status") == {"blob_store_enabled": False}
    assert "no blob store" in federation.root.refused(404, "POST", "blobstream", {})
    federation.root.refused(404, "GET", "blobstream/00000000-0000-0000-0000-000000000001")
