"""Results that are tables, as data frames."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from skerry.errors import MissingExtra, SkerryError

if TYPE_CHECKING:
    import pandas as pd


def frame(value: Any) -> pd.DataFrame:
    """A table as pandas writes it in JSON: a list of records, columns, or ``split``; also when that is in a text.

    Raises SkerryError for anything else, and MissingExtra without pandas.
    """
    try:
        import pandas  # noqa: PLC0415, ICN001 - who asks for no frames needs none
    except ImportError as error:
        raise MissingExtra("data", "Results as data frames") from error
    table = _parsed(value)
    if isinstance(table, dict) and {"columns", "data"} <= table.keys() <= {"columns", "data", "index"}:
        return pandas.DataFrame(table["data"], index=table.get("index"), columns=table["columns"])
    if not _is_records(table) and not _is_columns(table):
        raise SkerryError(
            "The result is not a table: that is a list of records, a dict of columns, or what data frames write with "
            'to_dict() or to_json(orient="split"). Without frames=True it comes as it is.'
        )
    return pandas.DataFrame(table)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_records(table: Any) -> bool:
    return isinstance(table, list) and all(isinstance(row, dict) for row in table)


def _is_columns(table: Any) -> bool:
    """All columns are lists of one length, or all are dicts by row."""
    if not isinstance(table, dict) or not table:
        return False
    columns = list(table.values())
    if all(isinstance(column, dict) for column in columns):
        return True
    return all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1
