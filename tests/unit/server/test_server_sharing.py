"""What nodes tell of their configuration: who sees it, and what it is good for."""

from __future__ import annotations

from typing import Any

import pytest
from server_federation import Api, Federation, plain

pytestmark = pytest.mark.unit
ROWS = [
    {"key": "encryption", "value": "False"},
    {"key": "database_labels", "value": "default"},
    {"key": "columns_default", "value": "age"},
    {"key": "columns_default", "value": "height"},
]


def share(federation: Federation, rows: list[dict[str, str]], organization: int = 2) -> None:
    assert federation.nodes[organization].ok(
        federation.nodes[organization].ask("PUT", "skerry/node/self/config", {"data": rows})
    ) == {"data": rows}


def seen(federation: Federation, by: Api) -> Any:
    [listed] = [n for n in by.get("node", per_page=100)["data"] if n["id"] == federation.node_ids[2]]
    shown = by.get(f"node/{federation.node_ids[2]}")
    assert shown["config"] == listed["config"]
    return shown["config"]


def ask_columns(federation: Federation, by: Api, *organizations: int, **more: Any) -> Any:
    targets = [{"id": one, "input": plain({"method": "column_headers"})} for one in organizations]
    body = {"collaboration_id": federation.collaboration, "db_label": "default", "organizations": targets, **more}
    return by.post("column", body)


def test_rows_are_shown_while_the_node_is_online(federation: Federation, researcher: Api) -> None:
    share(federation, ROWS)
    assert seen(federation, researcher) == []
    federation.work(2)
    assert seen(federation, researcher) == ROWS
    federation.clock.turn(minutes=2)
    assert seen(federation, researcher) == []
    federation.work(2)
    assert seen(federation, researcher) == ROWS


def test_rows_are_replaced_as_a_whole_and_vanish_when_the_node_leaves(federation: Federation, researcher: Api) -> None:
    share(federation, ROWS)
    share(federation, ROWS[:1])
    federation.work(2)
    assert seen(federation, researcher) == ROWS[:1]
    federation.nodes[2].post("skerry/node/leave")
    federation.work(2)
    assert seen(federation, researcher) == []


@pytest.mark.parametrize(
    "data",
    [
        [{"key": "", "value": "x"}],
        [{"key": "k" * 129, "value": "x"}],
        [{"key": "k", "value": "x" * 1025}],
        [{"key": "k", "value": 1}],
        [{"key": "k", "value": "x", "more": 1}],
        [{"key": "k", "value": "a\0b"}],
        [{"key": "k", "value": "x"}] * 2001,
        "rows",
        None,
    ],
)
def test_what_is_no_list_of_rows_is_refused(federation: Federation, data: Any) -> None:
    assert "data" in federation.nodes[2].refused(400, "PUT", "skerry/node/self/config", {"data": data})


def test_only_nodes_tell_of_themselves(federation: Federation, researcher: Api) -> None:
    researcher.refused(401, "PUT", "skerry/node/self/config", {"data": []})
    federation.anybody.refused(401, "PUT", "skerry/node/self/config", {"data": []})


def test_columns_come_from_what_the_nodes_tell(federation: Federation, researcher: Api) -> None:
    share(federation, ROWS)
    federation.work(2)
    assert ask_columns(federation, researcher, 2) == {"columns": ["age", "height"]}


def test_columns_are_asked_for_by_a_task_where_a_node_is_silent(federation: Federation, researcher: Api) -> None:
    share(federation, ROWS)
    federation.work(2)
    assert ask_columns(federation, researcher, 1, 2)["image"].endswith("algorithm-basics:latest")
    assert "image" in ask_columns(federation, researcher, 2, sheet_name="second")
    federation.clock.turn(minutes=2)
    assert "image" in ask_columns(federation, researcher, 2)


def test_columns_are_for_those_who_may_create_tasks(federation: Federation) -> None:
    share(federation, ROWS)
    federation.work(2)
    body = {"collaboration_id": federation.collaboration, "db_label": "default"}
    body["organizations"] = [{"id": 2, "input": plain({})}]
    federation.make_user("Viewer").refused(401, "POST", "column", body)
    federation.make_user("Researcher", 3).refused(401, "POST", "column", body)


@pytest.mark.parametrize("key", ["allowed_users", "allowed_orgs"])
def test_who_is_not_admitted_hears_so_at_once(federation: Federation, researcher: Api, key: str) -> None:
    share(federation, [{"key": key, "value": "4711"}, {"key": key, "value": "somebody else"}])
    federation.work(2)
    assert "does not admit" in researcher.refused(400, "POST", "task", federation.task_body(2))
    federation.make_task(researcher, 1)


def test_who_is_admitted_by_name_or_id_passes(federation: Federation, researcher: Api) -> None:
    me = researcher.post("token/user/validate")
    federation.work(2)
    for user in (str(me["user_id"]), me["username"]):
        for organization in ("1", "organization 1"):
            rows = [{"key": "allowed_users", "value": user}, {"key": "allowed_orgs", "value": organization}]
            share(federation, rows)
            federation.make_task(researcher, 2)


def test_both_lists_must_name_the_asker(federation: Federation, researcher: Api) -> None:
    me = researcher.post("token/user/validate")["username"]
    share(federation, [{"key": "allowed_users", "value": me}, {"key": "allowed_orgs", "value": "2"}])
    federation.work(2)
    researcher.refused(400, "POST", "task", federation.task_body(2))
