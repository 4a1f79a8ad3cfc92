"""vantage6's name and arguments for a federation in memory; with ``skerry.testing.Federation`` tests are shorter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import PurePath
from typing import Any

from skerry import contract
from skerry.algorithm_client import AlgorithmClient
from skerry.databases import FILE_TYPES, Database
from skerry.errors import ConfigurationError
from skerry.preprocessing import preprocess
from skerry.testing import Federation, InMemoryGate

_KNOWN = {"database", "db_type", "query", "sheet_name", "preprocessing", "label"}


class MockAlgorithmClient(AlgorithmClient):
    """The client of a central function at the first organization. Its tasks run at once, in this process."""

    def __init__(
        self,
        datasets: Sequence[Sequence[Mapping[str, Any]]],
        module: str,
        collaboration_id: int | None = None,
        organization_ids: Sequence[int] | None = None,
        node_ids: Sequence[int] | None = None,
    ) -> None:
        """``datasets``: for each organization its databases, in the order in which a task would name them.

        Each is a dict with ``database``, a data frame or the path of a file, and where needed ``db_type``, ``query``,
        ``sheet_name`` and ``preprocessing`` (a list of steps). ``module`` is the name of the algorithm's package.
        Organizations are numbered from 0 where no ids are given. Raises ConfigurationError for what does not fit.
        """
        federation = Federation(
            import_module(module),
            [_tables(each) for each in datasets],
            organizations=organization_ids or range(len(datasets)),
            nodes=node_ids,
            collaboration=collaboration_id or 1,
        )
        gate = InMemoryGate(federation, federation.add_task(None, "mock"), federation.organizations[0])
        super().__init__(gate.token(), contract.GATE_HOST, contract.GATE_PORT, gate=gate)


def _tables(datasets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = [str(one.get("label", f"database_{number}")) for number, one in enumerate(datasets)]
    return {label: _table(label, one) for label, one in zip(labels, datasets, strict=True)}


def _table(label: str, dataset: Mapping[str, Any]) -> Any:
    if strange := sorted(dataset.keys() - _KNOWN):
        known = ", ".join(sorted(_KNOWN))
        raise ConfigurationError(f'A dataset has no "{strange[0]}"; it may have: {known}.')
    table, steps = dataset.get("database"), json.dumps(dataset.get("preprocessing") or [])
    if table is None:
        raise ConfigurationError('A dataset needs its "database": a data frame, or the path of a file.')
    if not isinstance(table, str | PurePath):
        return preprocess(table, steps)
    kind = str(dataset.get("db_type") or FILE_TYPES.get(PurePath(table).suffix, "csv"))
    details = (str(dataset.get("query") or ""), str(dataset.get("sheet_name") or ""))
    return Database(label, str(table), kind, *details, preprocessing=steps)
