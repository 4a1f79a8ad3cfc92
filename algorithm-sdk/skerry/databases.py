"""The databases that a run was given: what they are, and how a table comes out of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from skerry import contract
from skerry.errors import DataError, MissingExtra
from skerry.preprocessing import preprocess

if TYPE_CHECKING:
    import pandas as pd

FILE_TYPES = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
}
"""The type of a database that is a file, by how its name ends."""
_SPARQL_SECONDS = 300


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
    """The table, preprocessed. Raises DataError, naming the database, when it can't be read as it was asked for."""
    loader = _LOADERS.get(database.kind)
    if loader is None:
        known = ", ".join(sorted(_LOADERS))
        raise DataError(f'The database "{database.label}" is of type "{database.kind}"; these can be loaded: {known}.')
    _refuse_details(database)
    try:
        frame = loader(database)
    except (OSError, ValueError, sqlite3.Error) as error:
        reason = _one_line(error)
        raise DataError(f'The database "{database.label}" can\'t be read as {database.kind}: {reason}') from error
    return preprocess(frame, database.preprocessing) if database.preprocessing else frame


def _refuse_details(database: Database) -> None:
    """A query that is not carried out would silently give other data than was asked for."""
    asked = {"query": (database.query, _QUERIED), "sheet name": (database.sheet_name, {"excel"})}
    for name, (value, kinds) in asked.items():
        if value and database.kind not in kinds:
            raise DataError(f'The database "{database.label}" is of type {database.kind} and takes no {name}.')
    if database.kind in _QUERIED and not database.query:
        raise DataError(
            f'The database "{database.label}" is of type {database.kind}: the task must give a query for it.'
        )


def _csv(database: Database) -> pd.DataFrame:
    frame: pd.DataFrame = _pandas().read_csv(database.uri)
    return frame


def _parquet(database: Database) -> pd.DataFrame:
    frame: pd.DataFrame = _pandas().read_parquet(database.uri, engine="pyarrow")
    return frame


def _excel(database: Database) -> pd.DataFrame:
    """Of the sheet that the task names, else of the first one."""
    _require("openpyxl", "Loading an Excel file")
    frame: pd.DataFrame = _pandas().read_excel(database.uri, sheet_name=database.sheet_name or 0, engine="openpyxl")
    return frame


def _sql(database: Database) -> pd.DataFrame:
    """From a file of SQLite where the address is a path, else from the server that it names."""
    return _sqlite(database) if database.uri.startswith("/") else _sql_server(database)


def _sqlite(database: Database) -> pd.DataFrame:
    address = f"file:{quote(database.uri)}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        return _query(database, connection, sqlite3.Error)


def _sql_server(database: Database) -> pd.DataFrame:
    sqlalchemy = _require("sqlalchemy", "Asking an SQL database")
    try:
        engine = sqlalchemy.create_engine(_with_driver(database.uri))
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        reason = _one_line(error)
        raise DataError(
            f'The database "{database.label}" has an address that this image can\'t use: {reason}'
        ) from error
    try:
        with engine.connect() as connection:
            return _query(database, connection, sqlalchemy.exc.SQLAlchemyError)
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise DataError(f'The database "{database.label}" does not answer: {_one_line(error)}') from error
    finally:
        engine.dispose()


def _with_driver(address: str) -> str:
    """PostgreSQL by the driver that the extra brings; SQLAlchemy's own choice is another. A named driver stays."""
    scheme, separator, rest = address.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgresql", "postgres"} else address


def _query(database: Database, connection: Any, trouble: type[Exception]) -> pd.DataFrame:
    pandas = _pandas()
    try:
        frame: pd.DataFrame = pandas.read_sql_query(database.query, connection)
    except (trouble, pandas.errors.DatabaseError) as error:
        reason = _one_line(error)
        raise DataError(f'The query of the database "{database.label}" can\'t be carried out: {reason}') from error
    return frame


def _sparql(database: Database) -> pd.DataFrame:
    """As CSV, which every SPARQL 1.1 service can answer with (SPARQL 1.1 Protocol, section 2.1.2)."""
    answer = import_module("requests").post(
        database.uri, data={"query": database.query}, headers={"Accept": "text/csv"}, timeout=_SPARQL_SECONDS
    )
    answer.raise_for_status()
    frame: pd.DataFrame = _pandas().read_csv(StringIO(answer.text))
    return frame


_LOADERS: dict[str, Callable[[Database], pd.DataFrame]] = {
    "csv": _csv,
    "parquet": _parquet,
    "excel": _excel,
    "sql": _sql,
    "sqlite": _sql,
    "sparql": _sparql,
}
_QUERIED = frozenset({"sql", "sqlite", "sparql"})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _pandas() -> Any:
    return _require("pandas", "Loading a table")


def _require(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra("data", what) from error
