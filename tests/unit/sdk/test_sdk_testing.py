"""The federation in memory is like one of machines in what an algorithm can notice."""

from __future__ import annotations

import importlib
import types
from functools import partial as partial_

import numpy as np
import pandas as pd
import pytest

from skerry import central, data, partial
from skerry.decorators import database, metadata
from skerry.errors import AlgorithmError, ConfigurationError
from skerry.testing import Federation

pytestmark = pytest.mark.unit


@central
def mean(client, column):
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create({"method": "total", "kwargs": {"column": column}}, organizations)
    parts = client.wait_for_results(task["id"])
    return {"mean": sum(part["sum"] for part in parts) / sum(part["n"] for part in parts)}


@partial
@data(1)
def total(frame, column):
    frame["spoilt"] = 0
    return {"sum": float(frame[column].sum()), "n": len(frame)}


@partial
@data(1)
def columns(frame):
    return list(frame.columns)


@partial
@data(1)
def careless(frame):
    return {"n": np.int64(len(frame))}


@central
def ask(client, method, organizations=None):
    task = client.task.create({"method": method}, organizations)
    return client.wait_for_results(task["id"])


@central
def look(client):
    task = client.task.create({"method": "who"}, [2])
    [run] = client.run.from_task(task["id"])
    return {
        "organization": client.organization.get(2)["name"],
        "collaboration": client.collaboration.get()["encrypted"],
        "node": client.node.get()["id"],
        "studies": client.study.list(),
        "task": client.task.get(task["id"])["parent"]["id"],
        "run": client.run.get(run["id"])["status"],
        "result": client.result.get(run["id"]),
        "addresses": client.vpn.get_addresses(),
    }


@metadata
def who(me):
    return me.organization_id


@partial
@data(2)
def both(first, second):
    return [list(first.columns), list(second.columns)]


@database(1)
def where(one):
    return one.uri


@central
def nobody(client):
    return client.task.create({"method": "who"}, [9])


def algorithm() -> types.ModuleType:
    module = types.ModuleType("algo")
    marked = (mean, total, columns, careless, ask, look, who, both, where, nobody)
    vars(module).update({function.__name__: function for function in marked})
    return module


@pytest.fixture
def federation() -> Federation:
    return Federation(algorithm(), [pd.DataFrame({"age": [40, 50]}), pd.DataFrame({"age": [60]})])


def test_a_child_s_large_input(federation, monkeypatch) -> None:
    monkeypatch.setattr("skerry.algorithm_client._MOST_INLINE", 1)
    found = federation.run("mean", column="age")
    assert (found, federation.blobs) == (federation.run("mean", column="age"), {})


def test_a_central_function(federation) -> None:
    assert federation.run("mean", column="age") == {"mean": 50.0}
    assert federation.run("mean", "age", at=2) == {"mean": 50.0}


def test_a_partial_function_at_each_organization(federation) -> None:
    assert federation.run_all("total", column="age") == [{"sum": 90.0, "n": 2}, {"sum": 60.0, "n": 1}]
    assert federation.organizations == [1, 2]


def test_a_run_can_not_change_the_next_ones_data(federation) -> None:
    federation.run("mean", column="age")
    assert federation.run_all("columns") == [["age"], ["age"]]


def test_what_can_not_be_sent_fails_here_too(federation) -> None:
    with pytest.raises(AlgorithmError, match=r"result\['n'\] is of type int64"):
        federation.run("careless")
    with pytest.raises(AlgorithmError, match="JSON"):
        federation.run("mean", column={1, 2})


def test_a_child_that_fails_is_told_to_its_parent_and_to_the_test(federation) -> None:
    with pytest.raises(AlgorithmError) as caught:
        federation.run("ask", method="nope")
    assert 'Organization 2: crashed: The algorithm "algo" has no function "nope"' in str(caught.value)


def test_the_rest_of_the_client(federation) -> None:
    seen = federation.run("look")
    assert seen == {
        "addresses": [],
        "organization": "organization 2",
        "collaboration": False,
        "node": 1,
        "studies": [],
        "task": 1,
        "run": "completed",
        "result": 2,
    }


@pytest.fixture
def seen_from() -> dict[str, dict]:
    """A parent at organization 1, and children at 1 to 3 whose first one asks."""
    federation = Federation(algorithm(), [pd.DataFrame({"age": [40]})] * 3, ports={8888: "ring", 9999: None})
    parent = federation.client()
    child = parent.task.create({"method": "who"}, [1, 2, 3])
    clients = {"parent": parent, "child": federation.client_of(federation.task_of(child["id"]), 1)}
    return {name: partial_(_organizations, client) for name, client in clients.items()}


def _organizations(client, **query) -> list[int]:
    return [row["organization_id"] for row in client.vpn.get_addresses(label="ring", **query)]


@pytest.mark.parametrize(
    ("query", "parent", "child"),
    [
        ({}, [], [1, 2, 3]),
        ({"only_self": True}, [], [1]),
        ({"only_siblings": True}, [], [2, 3]),
        ({"only_children": True}, [1, 2, 3], []),
        ({"only_parent": True}, [], []),
        ({"include_children": True}, [1, 2, 3], [1, 2, 3]),
        ({"include_parent": True}, [], [1, 2, 3]),
        ({"only_self": True, "include_parent": True}, [], [1]),
    ],
)
def test_addresses(seen_from, query, parent, child) -> None:
    assert (seen_from["parent"](**query), seen_from["child"](**query)) == (parent, child)


def test_addresses_by_organization_and_two_flags_that_exclude_each_other() -> None:
    federation = Federation(algorithm(), [pd.DataFrame({"age": [40]})] * 2, ports={8888: "ring", 9999: None})
    client = federation.client()
    client.task.create({"method": "who"}, [1, 2])
    found = client.vpn.wait_for([1, 2], children=True, timeout=0)
    assert {id_: [(row["port"], row["label"]) for row in rows] for id_, rows in found.items()} == {
        1: [(8888, "ring"), (9999, None)],
        2: [(8888, "ring"), (9999, None)],
    }
    assert found[1][0]["ip"] != found[2][0]["ip"]
    assert "only specify one" in client.vpn.get_addresses(only_self=True, only_parent=True)["message"]


def test_a_client_for_a_test_of_ones_own(federation) -> None:
    assert mean(federation.client(), "age") == {"mean": 50.0}


@pytest.mark.parametrize("call", [lambda f: f.run("nobody"), lambda f: f.run("ask", "who", [])])
def test_organizations_that_there_are_not(federation, call) -> None:
    with pytest.raises(AlgorithmError, match=r"no organization 9|at least one organization"):
        call(federation)


def test_several_tables_and_files(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n")
    federation = Federation(algorithm(), [{"one": path, "two": pd.DataFrame({"z": [1]})}])
    assert federation.run("both") == [["x", "y"], ["z"]]
    assert federation.run("where") == str(path)
    assert Federation(algorithm(), [str(path)]).run("columns") == ["x", "y"]


def test_tables_that_are_missing(federation) -> None:
    with pytest.raises(AlgorithmError, match="needs 2 database"):
        federation.run("both")
    with pytest.raises(AlgorithmError, match="give the path of a file"):
        federation.run("where")
    with pytest.raises(ConfigurationError, match="at least one organization"):
        Federation(algorithm(), [])


def test_the_folder_around_the_package_is_not_the_package(tmp_path, monkeypatch) -> None:
    """What one imports when the test lies beside the outer folder."""
    (tmp_path / "outer_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="outer_folder"):
        Federation(importlib.import_module("outer_folder"), [None])
