"""The mean of one column over all organizations; none of them shows more than a sum and a count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from skerry import AlgorithmClient, central, data, info, partial
from skerry.errors import DataError, PrivacyViolation

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_ROWS = 5
"""An organization with fewer values in the column takes no part: its sum would tell of single persons."""


@central
def mean(client: AlgorithmClient, column: str, organizations: list[int] | None = None) -> dict[str, Any]:
    """The mean over these organizations, or over all of the collaboration, and how many values it is made of."""
    task = client.task.create(
        input_={"method": "total", "kwargs": {"column": column}},
        organizations=organizations,
        name=f"total of {column}",
    )
    parts = client.wait_for_results(task["id"])
    n = sum(part["n"] for part in parts)
    info(f"{len(parts)} organizations have {n} values of {column}")
    return {"mean": math.fsum(part["sum"] for part in parts) / n, "n": n}


@partial
@data(1)
def total(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    """The sum of the values that are not missing, and their number."""
    if column not in frame:
        raise DataError(f'There is no column "{column}"; there are: {", ".join(map(str, frame.columns))}.')
    values = frame[column].dropna()
    if values.dtype.kind not in "iuf":
        raise DataError(f'The column "{column}" does not hold numbers.')
    if len(values) < MINIMUM_ROWS:
        raise PrivacyViolation(f'The column "{column}" has fewer than {MINIMUM_ROWS} values here.')
    return {"sum": math.fsum(values), "n": len(values)}
