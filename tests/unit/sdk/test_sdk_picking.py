"""Keeping a part of an answer, and results as tables."""

from __future__ import annotations

import inspect

import pytest

from skerry.errors import InputError, SkerryError
from skerry.picking import picks_fields, picks_rows
from skerry.tables import frame

pytestmark = pytest.mark.unit
ROWS = [{"id": 1, "name": "a", "on": True}, {"id": 2, "name": "b", "on": True}, {"id": 3, "name": "b", "on": False}]


class Calls:
    @picks_rows
    def list(self, page=1, **_pick):
        """Words."""
        return {"data": ROWS[page - 1 :], "links": {}}

    @picks_fields
    def get(self, id_, **_pick):
        return ROWS[id_ - 1]


@pytest.mark.parametrize(
    ("picks", "ids"),
    [
        ({"filter_": ("name", "b")}, [2, 3]),
        ({"filters": [("name", "b"), ("on", True)]}, [2]),
        ({"filter_": ("on", True), "filters": [("name", "b")]}, [2]),
        ({"filter_": ("name", "b"), "page": 3}, [3]),
        ({"filter_": ("name", "z")}, []),
    ],
)
def test_rows(picks, ids) -> None:
    assert [row["id"] for row in Calls().list(**picks)] == ids


def test_fields() -> None:
    calls = Calls()
    assert calls.list() == {"data": ROWS, "links": {}}
    assert calls.list(2, field="id") == [{"id": 2}, {"id": 3}]
    assert calls.list(fields=["name", "no such"], filter_=("id", 1)) == [{"name": "a"}]
    assert calls.get(2) is ROWS[1]
    assert calls.get(2, field="name") == {"name": "b"}
    assert calls.get(id_=2, fields=["id", "on"]) == {"id": 2, "on": True}


def test_a_field_to_filter_by_that_there_is_not() -> None:
    with pytest.raises(InputError, match='no field "colour" to filter by; there are: id, name, on'):
        Calls().list(filter_=("colour", "red"))


@pytest.mark.parametrize("picks", [{"colour": 1}, {"filter_": ("id", 1)}])
def test_an_argument_that_there_is_not(picks) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        Calls().get(1, **picks)


def test_help_names_them() -> None:
    assert Calls.list.__doc__ == "Words."
    shown = "(self, page=1, *, field: 'str | None' = None, fields: 'Sequence[str] | None' = None"
    assert str(inspect.signature(Calls.list)).startswith(shown)


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        ([{"a": 1, "b": 2}, {"a": 3, "b": None}], {"a": [1, 3]}),
        ({"a": [1, 3], "b": [2, 4]}, {"a": [1, 3], "b": [2, 4]}),
        ({"a": {"0": 1, "1": 3}}, {"a": [1, 3]}),
        ({"columns": ["a", "b"], "data": [[1, 2], [3, 4]], "index": [0, 1]}, {"a": [1, 3], "b": [2, 4]}),
        ({"columns": ["a"], "data": [[1]]}, {"a": [1]}),
        ('{"a": [1, 3]}', {"a": [1, 3]}),
        ([], {}),
    ],
)
def test_tables(value, columns) -> None:
    made = frame(value)
    assert {name: list(made[name]) for name in columns} == columns


@pytest.mark.parametrize(
    "value", [1, "words", None, {}, {"mean": 3.5}, [1, 2], {"a": [1], "b": [1, 2]}, {"a": [1], "b": 2}]
)
def test_what_is_no_table(value) -> None:
    with pytest.raises(SkerryError, match="not a table"):
        frame(value)
