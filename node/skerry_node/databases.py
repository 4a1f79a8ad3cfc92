"""The databases of a run: those that its task names, checked at the time they are mounted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skerry.errors import SkerryError
from skerry_node.config import Database
from skerry_node.launchers.launcher import Source


class DatabaseUnavailable(SkerryError):
    """The owner's database is not where the configuration says; the sentence is for the user."""


def choose(databases: Sequence[Database], wanted: Sequence[str]) -> tuple[Source, ...]:
    """The sources of these labels, in the task's order. The labels have been admitted. Raises DatabaseUnavailable."""
    by_label = {database.label: database for database in databases}
    return tuple(_check(by_label[label]) for label in wanted)


def _check(database: Database) -> Source:
    """Links are followed here, once: what is mounted is what was checked."""
    path = Path(database.uri).resolve()
    there = path.is_dir() if database.type == "folder" else path.is_file()
    if not there:
        raise DatabaseUnavailable(f'The database "{database.label}" of this node is not there at present.')
    return Source(database.label, path, database.type, database.env)
