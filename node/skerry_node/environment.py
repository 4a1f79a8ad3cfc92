"""The variables that an algorithm's container gets: the contract's names, and nothing that a user can choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from skerry import contract
from skerry_node.databases import Service
from skerry_node.launchers.launcher import Layout, Source
from skerry_node.relays import NOTHING, Reached

_PARAMETERS = {"query": "QUERY", "sheet_name": "SHEET_NAME", "preprocessing": "PREPROCESSING"}
_CONTRACT_TYPES = {"sqlite": "sql"}
"""vantage6's tools know a file of SQLite as ``sql`` with a path that ends so."""


def build(
    layout: Layout,
    given: Sequence[Source | Service],
    labels: Sequence[str],
    requested: Sequence[Mapping[str, Any]],
    extra: Mapping[str, str] | None = None,
    *,
    reached: Reached = NOTHING,
) -> dict[str, str]:
    """All variables, encoded. ``given`` are the requested databases, ``labels`` all that the node has.

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
        contract.REQUESTED_LABELS: ",".join(database.label for database in given),
        contract.ALL_LABELS: ",".join(labels),
    }
    if layout.socket is not None:
        variables[contract.GATE_SOCKET] = layout.socket
    for database, wanted in zip(given, requested, strict=True):
        variables |= _database(database, _uri(database, layout, reached), wanted)
    for name, port in reached.gates.items():
        variables[contract.gate_variable(name)] = f"127.0.0.1:{port}"
    if reached.egress is not None:
        variables |= dict.fromkeys(contract.PROXIES, f"http://127.0.0.1:{reached.egress}")
        variables |= dict.fromkeys(contract.NO_PROXIES, contract.NOT_PROXIED)
    return {name: value if contract.is_plain(name) else contract.encode(value) for name, value in variables.items()}


def _uri(database: Source | Service, layout: Layout, reached: Reached) -> str:
    """A path, or the address of the relay that leads to the service."""
    if isinstance(database, Source):
        return layout.databases[database.label]
    return database.address.at(reached.databases[database.label], database.password)


def _database(database: Source | Service, uri: str, wanted: Mapping[str, Any]) -> dict[str, str]:
    variables = {
        contract.database_variable(database.label, "DATABASE_URI"): uri,
        contract.database_variable(database.label, "DATABASE_TYPE"): _CONTRACT_TYPES.get(database.type, database.type),
    }
    for key, value in database.parameters.items():
        variables[contract.database_variable(database.label, contract.parameter(key))] = value
    for key, name in _PARAMETERS.items():
        if wanted.get(key):
            value = wanted[key] if isinstance(wanted[key], str) else json.dumps(wanted[key])
            variables[contract.database_variable(database.label, name)] = value
    return variables
