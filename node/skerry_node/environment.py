"""The variables that an algorithm's container gets: the contract's names, and nothing that a user can choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from skerry import contract
from skerry_node.launchers.launcher import Layout, Source

_PARAMETERS = {"query": "QUERY", "sheet_name": "SHEET_NAME", "preprocessing": "PREPROCESSING"}
_CONTRACT_TYPES = {"sqlite": "sql"}
"""vantage6's tools know a file of SQLite as ``sql`` with a path that ends so."""


def build(
    layout: Layout,
    sources: Sequence[Source],
    labels: Sequence[str],
    requested: Sequence[Mapping[str, Any]],
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All variables, encoded. ``sources`` are the requested databases, ``labels`` all that the node has.

    ``extra`` is what the owner gives every algorithm beside; its names were checked with the configuration.
    """
    variables = {
        **(extra or {}),
        contract.INPUT_FILE: f"{layout.folder}/input",
        contract.OUTPUT_FILE: f"{layout.folder}/output",
        contract.TOKEN_FILE: f"{layout.folder}/token",
        contract.TEMPORARY: layout.temporary,
        contract.HOST: contract.GATE_HOST,
        contract.PORT: str(layout.port),
        contract.API_PATH: "",
        contract.REQUESTED_LABELS: ",".join(source.label for source in sources),
        contract.ALL_LABELS: ",".join(labels),
    }
    if layout.socket is not None:
        variables[contract.GATE_SOCKET] = layout.socket
    for source, wanted in zip(sources, requested, strict=True):
        variables |= _database(source, layout.databases[source.label], wanted)
    return {name: value if contract.is_plain(name) else contract.encode(value) for name, value in variables.items()}


def _database(source: Source, path: str, wanted: Mapping[str, Any]) -> dict[str, str]:
    variables = {
        contract.database_variable(source.label, "DATABASE_URI"): path,
        contract.database_variable(source.label, "DATABASE_TYPE"): _CONTRACT_TYPES.get(source.type, source.type),
    }
    for key, value in source.parameters.items():
        variables[contract.database_variable(source.label, f"DB_PARAM_{key.upper()}")] = value
    for key, name in _PARAMETERS.items():
        if wanted.get(key):
            value = wanted[key] if isinstance(wanted[key], str) else json.dumps(wanted[key])
            variables[contract.database_variable(source.label, name)] = value
    return variables
