"""What a node tells its server of its configuration, as far as the owner shares it (native protocol, section 4).

It helps people to write tasks that will be admitted; what is admitted is decided here all the same.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from skerry_node.config import Config, Database

log = logging.getLogger(__name__)

Row = tuple[str, str]
MOST_ROWS = 2000
_LONGEST_VALUE = 1024
_LONGEST_LINE = 1 << 20


def describe(config: Config) -> list[Row]:
    """Keys and values; a key with several values has several rows. Empty where the owner shares nothing."""
    if not config.share.configuration:
        return []
    rows = [row for row in _rows(config) if len(row[1]) <= _LONGEST_VALUE]
    for database in config.databases if config.share.columns else ():
        columns = [(f"columns_{database.label}", name) for name in read_columns(database)]
        if len(rows) + len(columns) > MOST_ROWS or any(len(name) > _LONGEST_VALUE for _, name in columns):
            log.warning("The columns of the database %s are too many or too long to be shared", database.label)
            continue
        rows += columns
    return rows


def _rows(config: Config) -> Iterator[Row]:
    policies = config.policies
    yield "encryption", str(config.encryption is not None).lower()
    for entry in dict.fromkeys(rule.algorithm for rule in policies.allowed_algorithms or ()):
        yield "allowed_algorithms", entry
    for user in policies.allowed_users or ():
        yield "allowed_users", str(user)
    for organization in policies.allowed_organizations or ():
        yield "allowed_orgs", str(organization)
    for database in config.databases:
        yield "database_labels", database.label
        yield f"db_type_{database.label}", database.type


def read_columns(database: Database) -> list[str]:
    """The names in a file's head, no data; none for what has no such head, or where it can't be read."""
    read = _READERS.get(database.type)
    if read is None:
        return []
    try:
        return read(Path(database.uri))
    except ImportError as error:
        log.warning('The columns of %s are not shared: pip install "skerry[data]" (%s)', database.label, error)
    except Exception as error:  # noqa: BLE001 - three libraries, each with errors of its own; nothing depends on it
        log.warning("The columns of %s can't be read: %s", database.label, type(error).__name__)
    return []


def _read_csv(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader([file.readline(_LONGEST_LINE)]), [])


def _read_parquet(path: Path) -> list[str]:
    from pyarrow import parquet  # noqa: PLC0415 - of the extra data

    return [str(name) for name in parquet.read_schema(path).names]


def _read_excel(path: Path) -> list[str]:
    """Of the first sheet, which is what algorithms are given when a task names none."""
    import openpyxl  # noqa: PLC0415 - of the extra data

    book = openpyxl.load_workbook(path, read_only=True)
    try:
        head = next(book.worksheets[0].iter_rows(max_row=1, values_only=True), ())
        return [str(name) for name in head if name is not None]
    finally:
        book.close()


_READERS: dict[str, Callable[[Path], list[str]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "excel": _read_excel,
}
