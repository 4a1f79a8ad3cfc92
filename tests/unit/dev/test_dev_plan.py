from __future__ import annotations

import json

import pytest

from skerry.dev import plan as plans
from skerry.dev.plan import Plan
from skerry.errors import ConfigurationError

pytestmark = pytest.mark.unit


@pytest.fixture
def tables(tmp_path):
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    for path in paths:
        path.write_text("age\n1\n")
    return [str(path) for path in paths]


def test_a_file_for_each_node(tables) -> None:
    database = plans.parse_database(f"default={','.join(tables)}", 3)
    assert database == plans.Database("default", tuple(tables))
    assert database.type == "csv"


def test_one_file_for_all(tables) -> None:
    assert plans.parse_database(f"default={tables[0]}", 3).files == (tables[0],) * 3


def test_a_plan_survives_being_written_down(tables) -> None:
    plan = Plan(
        "x", 3, (plans.parse_database(f"default={','.join(tables)}", 3),), "both", launcher="process", port=5000
    )
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("default", "write LABEL=FILE"),
        ("=a.csv", "write LABEL=FILE"),
        ("my label=a.csv", "write LABEL=FILE"),
        ("default={0},{1}", "2 files for 3 nodes"),
        ("default={0}.none", "there is no file"),
        ("default=", "write LABEL=FILE"),
    ],
)
def test_a_wrong_database_is_named(tables, text, sentence) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        plans.parse_database(text.format(*tables), 3)


@pytest.mark.parametrize(("name", "kind"), [("a.xlsx", "excel"), ("a.DB", "sqlite"), ("folder.csv", "folder")])
def test_other_types(tmp_path, name, kind) -> None:
    path = tmp_path / name
    path.mkdir() if kind == "folder" else path.write_text("")
    assert plans.parse_database(f"default={path}", 2).type == kind


def test_files_of_another_type_are_refused(tables, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.parquet").write_text("")
    with pytest.raises(ConfigurationError, match="neither"):
        plans.database("default", [tmp_path / "a.txt"], 1)
    with pytest.raises(ConfigurationError, match="different types"):
        plans.database("default", [tables[0], tmp_path / "b.parquet"], 2)


@pytest.mark.parametrize(
    ("plan", "option"),
    [
        (Plan(name="../x"), "--name"),
        (Plan(name=""), "--name"),
        (Plan(name="x" * 41), "--name"),
        (Plan(nodes=0), "--nodes"),
        (Plan(nodes=51), "--nodes"),
        (Plan(databases=(plans.Database("a", ("x",)), plans.Database("a", ("y",)))), "--database a"),
    ],
)
def test_a_plan_that_can_not_be_built(plan, option) -> None:
    with pytest.raises(ConfigurationError, match=option):
        plans.check(plan)


@pytest.mark.parametrize(
    ("plan", "admits"),
    [(Plan(), False), (Plan(accept="both"), True), (Plan(accept="vantage6"), True), (Plan(encrypted=False), True)],
)
def test_only_native_federations_refuse_unsigned_tasks(plan, admits) -> None:
    assert plan.admits_unsigned is admits
