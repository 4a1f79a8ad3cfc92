"""Keeping a part of an answer: some of its rows, some of their fields. vantage6 calls it post-filtering.

    client.node.list(fields=["id", "name"], filter_=("status", "online"))

A list of which rows or fields were picked is a plain list; without ``filter_``, ``filters``, ``field`` and ``fields``
it is the server's answer, ``{"data": […], "links": {…}}``. Rows are picked from the page that was asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypedDict, TypeVar

from skerry.errors import InputError

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT", bound=Mapping[str, Any])
Pair = tuple[str, Any]


class Fields(TypedDict, total=False):
    """``field``: the one field to keep; ``fields``: those to keep."""

    field: str | None
    fields: Sequence[str] | None


class Filters(Fields, total=False):
    """``filter_``: only rows that have this value in this field; ``filters``: in all of these."""

    filter_: Pair | None
    filters: Sequence[Pair] | None


def picks_fields(method: Callable[P, AnswerT]) -> Callable[P, AnswerT]:
    """Lets a method that answers with one thing take ``field`` and ``fields``; the answer is then a plain dict."""

    def pick(answer: Any, field: str | None = None, fields: Sequence[str] | None = None) -> Any:
        names = _names(field, fields)
        return _keep(answer, names) if names else answer

    return _picking(method, pick)


def picks_rows(method: Callable[P, dict[str, Any]]) -> Callable[P, Any]:
    """Lets a method that answers with a list take ``field``, ``fields``, ``filter_`` and ``filters``.

    What comes back depends on them: see above.
    """

    def pick(
        answer: Any,
        field: str | None = None,
        fields: Sequence[str] | None = None,
        filter_: Pair | None = None,
        filters: Sequence[Pair] | None = None,
    ) -> Any:
        names, pairs = _names(field, fields), [*([filter_] if filter_ else []), *(filters or [])]
        if not names and not pairs:
            return answer
        rows = [row for row in answer["data"] if all(_has(row, *pair) for pair in pairs)]
        return [_keep(row, names) for row in rows] if names else rows

    return _picking(method, pick)


def _picking(method: Callable[P, Any], pick: Callable[..., Any]) -> Callable[P, Any]:
    """The method without the arguments of ``pick``; all others are checked by Python before anything is sent."""
    picked = list(inspect.signature(pick).parameters.values())[1:]
    own = [one for one in inspect.signature(method).parameters.values() if one.kind is not one.VAR_KEYWORD]
    names, known = {one.name for one in picked}, {one.name for one in own}

    @wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        if strange := sorted(kwargs.keys() - names - known):
            raise TypeError(f"{method.__qualname__}() got an unexpected keyword argument '{strange[0]}'")
        chosen = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        return pick(method(*args, **kwargs), **chosen)

    shown = [*own, *(one.replace(kind=one.KEYWORD_ONLY) for one in picked)]
    wrapper.__signature__ = inspect.signature(method).replace(parameters=shown)  # type: ignore[attr-defined]
    return wrapper


def _names(field: str | None, fields: Sequence[str] | None) -> list[str]:
    return [*([field] if field else []), *(fields or [])]


def _keep(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _has(row: Mapping[str, Any], name: str, value: Any) -> bool:
    if name not in row:
        raise InputError(f'There is no field "{name}" to filter by; there are: {", ".join(row)}.')
    return bool(row[name] == value)
