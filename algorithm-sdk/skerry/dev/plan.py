"""What a development federation shall be, before anything is started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from skerry.databases import FILE_TYPES
from skerry.errors import ConfigurationError

Accept = Literal["native", "vantage6", "both"]
Launcher = Literal["docker", "process", "auto"]

MAX_NODES = 50
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Database:
    """A label and one file or folder for each node, absolute."""

    label: str
    files: tuple[str, ...]

    @property
    def type(self) -> str:
        return _type(Path(self.files[0]))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that ``skerry dev up`` was asked for; ``port`` None is any free one.

    ``node_settings``: more for the configuration of every node.
    """

    name: str = "dev"
    nodes: int = 3
    databases: tuple[Database, ...] = ()
    accept: Accept = "native"
    encrypted: bool = True
    launcher: Launcher = "auto"
    port: int | None = None
    node_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def admits_unsigned(self) -> bool:
        """Only native envelopes are signed."""
        return not self.encrypted or self.accept != "native"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_launcher(self, launcher: Launcher) -> Plan:
        return replace(self, launcher=launcher)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Plan:
        databases = tuple(Database(one["label"], tuple(one["files"])) for one in value["databases"])
        return cls(**{**value, "databases": databases})


def check(plan: Plan) -> None:
    """Raises ConfigurationError for what can't be built, naming the option."""
    if not _NAME.fullmatch(plan.name):
        raise ConfigurationError(
            f"--name {plan.name}: use up to 40 lower-case letters, digits, - and _, a letter or digit first."
        )
    if not 1 <= plan.nodes <= MAX_NODES:
        raise ConfigurationError(f"--nodes {plan.nodes}: choose 1 to {MAX_NODES}.")
    # A label becomes part of an environment variable's name, in upper case.
    labels = [database.label.upper() for database in plan.databases]
    for database in plan.databases:
        if labels.count(database.label.upper()) > 1:
            raise ConfigurationError(f"--database {database.label}: given twice; each label names one database.")


def read_settings(path: Path) -> dict[str, Any]:
    """More for every node's configuration, from a JSON file. Raises ConfigurationError."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--node-settings {path}: this can't be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"--node-settings {path}: write an object, with the keys of a node's configuration.")
    return value


def parse_database(text: str, nodes: int) -> Database:
    """``LABEL=FILE,FILE,…``: one file for each node, or one for all. Raises ConfigurationError."""
    label, equals, files = text.partition("=")
    if not all(files.split(",")) or not equals or not _LABEL.fullmatch(label):
        raise ConfigurationError(f"--database {text}: write LABEL=FILE,FILE,… with a label of letters, digits and _.")
    return database(label, files.split(","), nodes)


def database(label: str, files: Iterable[str | Path], nodes: int) -> Database:
    """Raises ConfigurationError unless there is one file or folder for each node (or one for all), all of one type."""
    paths = [Path(file).expanduser().absolute() for file in files]
    if len(paths) not in {1, nodes}:
        raise ConfigurationError(
            f"--database {label}: {len(paths)} files for {nodes} nodes; give one for each, or one for all."
        )
    for path in paths:
        _check_file(label, path)
    if len({_type(path) for path in paths}) > 1:
        raise ConfigurationError(f"--database {label}: the files are of different types; use one type for a label.")
    return Database(label, tuple(str(path) for path in paths * (nodes // len(paths))))


def _type(path: Path) -> str:
    return "folder" if path.is_dir() else FILE_TYPES[path.suffix.lower()]


def _check_file(label: str, path: Path) -> None:
    if path.is_dir():
        return
    if not path.is_file():
        raise ConfigurationError(f"--database {label}: there is no file {path}.")
    if path.suffix.lower() not in FILE_TYPES:
        raise ConfigurationError(
            f"--database {label}: {path.name} is neither a folder nor one of {', '.join(FILE_TYPES)}."
        )
