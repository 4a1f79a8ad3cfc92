"""What a task may have done to a table before a function gets it: vantage6's steps, under vantage6's names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skerry.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Step = Callable[..., "pd.DataFrame"]


def preprocess(frame: pd.DataFrame, steps: str) -> pd.DataFrame:
    """The table after all steps, which are JSON, one after the other. Raises DataError, naming the step."""
    for step in _parse(steps):
        frame = _apply(frame, step)
    return frame


def filter_range(
    frame: pd.DataFrame,
    column: str,
    min_: float | None = None,
    max_: float | None = None,
    *,
    include_min: bool = False,
    include_max: bool = False,
) -> pd.DataFrame:
    """The rows whose value lies between the two bounds; a bound that is None does not count."""
    if column not in frame.columns:
        raise DataError(f'The table has no column "{column}" to filter by.')
    if min_ is not None:
        frame = frame[frame[column] >= min_ if include_min else frame[column] > min_]
    if max_ is not None:
        frame = frame[frame[column] <= max_ if include_max else frame[column] < max_]
    return frame


def dummy_preprocess(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as it is."""
    return frame


_STEPS: dict[str, Step] = {"filter_range": filter_range, "dummy_preprocess": dummy_preprocess}


def _parse(steps: str) -> list[dict[str, Any]]:
    try:
        parsed = json.loads(steps)
    except (ValueError, RecursionError) as error:
        raise DataError("The preprocessing of a database is not JSON.") from error
    if not isinstance(parsed, list) or not all(isinstance(step, dict) and "function" in step for step in parsed):
        raise DataError('The preprocessing of a database must be a list of steps, each with its "function".')
    return parsed


def _apply(frame: pd.DataFrame, step: dict[str, Any]) -> pd.DataFrame:
    name, parameters = step["function"], step.get("parameters") or {}
    function = _STEPS.get(name) if isinstance(name, str) else None
    if function is None:
        raise DataError(f'There is no preprocessing function "{name}"; there are: {", ".join(sorted(_STEPS))}.')
    try:
        inspect.signature(function).bind(frame, **parameters)
        return function(frame, **parameters)
    except TypeError as error:
        raise DataError(f'The preprocessing function "{name}" can\'t be used so: {error}.') from error
