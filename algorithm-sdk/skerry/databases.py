"""The databases that a run was given: what they are, and how a table comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from skerry import contract
from skerry.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Database:
    """One database that the task names. ``uri`` is a path inside the container, or what the node's owner wrote."""

    label: str
    uri: str
    kind: str
    query: str = ""
    sheet_name: str = ""
    preprocessing: str = ""

    @classmethod
    def of(cls, label: str, environment: Mapping[str, str]) -> Database:
        """From the variables of the container contract; raises DataError when the node gave no such database."""

        def variable(what: str) -> str:
            return environment.get(contract.database_variable(label, what), "")

        if not variable("DATABASE_URI"):
            raise DataError(f'The node gave this run no database "{label}".')
        kind = variable("DATABASE_TYPE").lower()
        details = (variable("QUERY"), variable("SHEET_NAME"), variable("PREPROCESSING"))
        return cls(label, variable("DATABASE_URI"), kind, *details)


def requested(environment: Mapping[str, str]) -> list[Database]:
    """The databases that the task names, in its order."""
    labels = environment.get(contract.REQUESTED_LABELS, "")
    return [Database.of(label.strip(), environment) for label in labels.split(",") if label.strip()]


def load(database: Database) -> pd.DataFrame:
    """The whole table. Raises DataError, naming the database, when it can't be read as it was asked for."""
    loader = _LOADERS.get(database.kind)
    if loader is None:
        known = ", ".join(sorted(_LOADERS))
        raise DataError(f'The database "{database.label}" is of type "{database.kind}"; these can be loaded: {known}.')
    _refuse_details(database)
    try:
        return loader(database.uri)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f'The database "{database.label}" can\'t be read as {database.kind}: {reason}') from error


def _refuse_details(database: Database) -> None:
    """A query that is not carried out would silently give other data than was asked for."""
    asked = {"query": database.query, "sheet name": database.sheet_name, "preprocessing": database.preprocessing}
    for name, value in asked.items():
        if value and value != "[]":
            raise DataError(f'The database "{database.label}" is a {database.kind} file and takes no {name}.')


def _csv(uri: str) -> pd.DataFrame:
    frame: pd.DataFrame = _pandas().read_csv(uri)
    return frame


def _parquet(uri: str) -> pd.DataFrame:
    frame: pd.DataFrame = _pandas().read_parquet(uri, engine="pyarrow")
    return frame


_LOADERS: dict[str, Callable[[str], pd.DataFrame]] = {"csv": _csv, "parquet": _parquet}


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError as error:
        raise MissingExtra("data", "Loading a table") from error
