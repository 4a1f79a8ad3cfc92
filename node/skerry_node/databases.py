"""The databases of a run: those that its task names, checked at the time they are handed to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skerry.errors import SkerryError
from skerry_node.config import Database
from skerry_node.launchers.launcher import Source
from skerry_node.services import Address


class DatabaseUnavailable(SkerryError):
    """The owner's database is not where the configuration says; the sentence is for the user."""


@dataclass(frozen=True, slots=True)
class Service:
    """A database of the owner that is reached over the network, with its password."""

    label: str
    address: Address
    type: str
    password: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)


def choose(databases: Sequence[Database], wanted: Sequence[str]) -> tuple[Source | Service, ...]:
    """The databases of these labels, in the task's order. The labels have been admitted. Raises DatabaseUnavailable."""
    by_label = {database.label: database for database in databases}
    return tuple(_check(by_label[label]) for label in wanted)


def _check(database: Database) -> Source | Service:
    if isinstance(database.uri, Address):
        return Service(database.label, database.uri, database.type, _read_password(database), database.env)
    return _check_file(database, database.uri)


def _check_file(database: Database, uri: Path) -> Source:
    """Links are followed here, once: what is mounted is what was checked."""
    path = uri.resolve()
    there = path.is_dir() if database.type == "folder" else path.is_file()
    if not there:
        raise DatabaseUnavailable(f'The database "{database.label}" of this node is not there at present.')
    return Source(database.label, path, database.type, database.env)


def _read_password(database: Database) -> str | None:
    if database.password_file is None:
        return None
    try:
        return database.password_file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseUnavailable(f'The database "{database.label}" of this node can\'t be used at present.') from error
