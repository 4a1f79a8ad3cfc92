"""Lists: filters, order, pages and the links between them, as the dialect has it (contract, section 2.1)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import urlencode

from flask import request
from pydantic import Field
from sqlalchemy import ColumnElement, Select, false, func, literal_column
from sqlalchemy.sql import operators

from skerry_server import counting
from skerry_server.doors.fields import Flag, Query
from skerry_server.doors.handling import Call, Reply
from skerry_server.errors import InvalidRequest

_Row = TypeVar("_Row")
PER_PAGE = 10
EVERYTHING_OF_A_TASK = 1000
_MOST = 10_000
_SURROGATES, _AFTER_SURROGATES = range(0xD800, 0xE000), 0xE000
_RARE: ColumnElement[float] = literal_column("0.000001")


class Listing(Query):
    """What every list understands."""

    page: Annotated[int, Field(ge=1, le=10**6)] = 1
    per_page: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    sort: Annotated[str, Field(max_length=256)] | None = None
    no_pagination: Flag = False


def paged(
    call: Call,
    statement: Select[_Row],
    query: Listing,
    show: Callable[[Call, Sequence[_Row]], list[dict[str, Any]]],
    *,
    sorts: Mapping[str, Any],
    default: ColumnElement[Any],
    per_page: int = PER_PAGE,
    narrow: Select[_Row] | None = None,
) -> Reply:
    """One page of the rows, shown, with its links and headers. Raises InvalidRequest for an unknown order.

    ``narrow``: the same, as an index finds its rows, which may all lie at the end of the order. Few are found by that
    and then sorted; of more, the first are found soon in their order. A database takes them to be spread evenly.
    """
    size = _MOST if query.no_pagination else query.per_page or per_page
    before = (query.page - 1) * size
    order = _order(query.sort, sorts) or [default]
    known = counting.few(call.session, narrow) if narrow is not None else None
    if narrow is not None and known is not None:
        statement, order = narrow, [_sorted(one) for one in order]
    found = call.session.scalars(_cut(statement, order, before, size + 1)).unique().all()
    rows = found[:size]
    is_last = len(found) <= size and (bool(found) or not before)
    total = before + len(found) if found else 0
    if not is_last:
        total = max(total, call.server.counter.count(call.session, statement) if known is None else known)
    links = _links(call, query.page, -(-total // size))
    return Reply({"data": show(call, rows), "links": links}, 200, _headers(total, links))


def named(*columns: Any) -> dict[str, Any]:
    """Columns to sort by, under their own names."""
    return {column.key: column for column in columns}


def like(column: Any, pattern: str) -> ColumnElement[bool]:
    """Where ``%`` and ``_`` stand for what they do in SQL, and a backslash for itself, in every database."""
    return cast("ColumnElement[bool]", column.like(pattern.replace("\\", "\\\\"), escape="\\"))


def rare(call: Call, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """SQLite is told that few rows have it: it goes by the condition's index, where it would guess."""
    return condition if counting.estimates(call.session) else func.likelihood(condition, _RARE)


def common(call: Call, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """SQLite sees no index for it: it looks at one row after another, as they are ordered, of which many have it."""
    return condition if counting.estimates(call.session) else func.coalesce(condition, false())


def beginning(call: Call, column: Any, pattern: str | None) -> list[ColumnElement[bool]] | None:
    """How an index finds what matches a pattern that says how the text begins, beside ``like``; None for any other.

    PostgreSQL sees it by itself. SQLite, whose ``LIKE`` has no regard to the case of ASCII letters, is told.
    """
    start = re.split("[%_]", pattern or "", maxsplit=1)[0]
    if not start:
        return None
    if counting.estimates(call.session):
        return []
    folded, after = column.collate("NOCASE"), _after(start)
    return [rare(call, folded >= start), *([rare(call, folded < after)] if after else [])]


def _after(start: str) -> str | None:
    """A text behind all that begin so, without regard to case; None where there is none."""
    last = ord(start[-1].lower() if start[-1].isascii() else start[-1])
    following = _AFTER_SURROGATES if last + 1 in _SURROGATES else last + 1
    return start[:-1] + chr(following) if following <= sys.maxunicode else None


def each(show: Callable[[Call, _Row], dict[str, Any]]) -> Callable[[Call, Sequence[_Row]], list[dict[str, Any]]]:
    """For rows that can be shown one by one."""
    return lambda call, rows: [show(call, row) for row in rows]


def _cut(statement: Select[_Row], order: Sequence[Any], before: int, size: int) -> Select[_Row]:
    """So many rows after those before; these are passed over by their ids, without what is shown with a row."""
    ordered = statement.order_by(*order)
    if not before:
        return ordered.limit(size)
    ids = ordered.with_only_columns(_id_of(statement), maintain_column_froms=True).limit(size).offset(before)
    return ordered.where(_id_of(statement).in_(ids))


def _id_of(statement: Select[Any]) -> Any:
    return statement.column_descriptions[0]["entity"].__table__.c.id


def _order(sort: str | None, sorts: Mapping[str, Any]) -> list[Any]:
    order = []
    for name in (sort or "").split(","):
        column = sorts.get(name.strip().lstrip("-"))
        if name and column is None:
            raise InvalidRequest(f'"sort" can\'t be "{name}"; choose from {", ".join(sorts)}.', {"sort": ["Unknown."]})
        if column is not None:
            order.append(column.desc() if name.strip().startswith("-") else column.asc())
    return order


def _sorted(order: Any) -> ColumnElement[Any]:
    """The same order of an expression that no index has."""
    plain = func.coalesce(order.element, order.element)
    return plain.desc() if order.modifier is operators.desc_op else plain.asc()


def _links(call: Call, page: int, last: int) -> dict[str, str]:
    pages = {"self": page}
    if last:
        pages |= {"first": 1, "last": last}
    if page > 1:
        pages["previous"] = page - 1
    if page < last:
        pages["next"] = page + 1
    path = call.link(request.path.removeprefix(call.server.settings.api_path).strip("/"))
    kept = [(key, value) for key, value in request.args.items(multi=True) if key != "page"]
    return {name: f"{path}?{urlencode([*kept, ('page', number)])}" for name, number in sorted(pages.items())}


def _headers(total: int, links: Mapping[str, str]) -> dict[str, str]:
    return {
        "total-count": str(total),
        "Link": ",".join(f"<{url}>; rel={name}" for name, url in links.items()),
        "access-control-expose-headers": "total-count, Link",
    }
