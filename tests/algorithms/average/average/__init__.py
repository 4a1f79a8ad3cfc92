"""A federated mean of a column, as the README shows it."""

from __future__ import annotations

from typing import Any

from skerry import AlgorithmClient, central, data, partial


@central
def mean(client: AlgorithmClient, column: str) -> dict[str, float]:
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create(input_={"method": "sums", "kwargs": {"column": column}}, organizations=organizations)
    parts = client.wait_for_results(task["id"])
    return {"mean": sum(p["sum"] for p in parts) / sum(p["n"] for p in parts)}


@partial
@data(1)
def sums(frame: Any, column: str) -> dict[str, float]:
    return {"sum": float(frame[column].sum()), "n": int(frame[column].count())}
