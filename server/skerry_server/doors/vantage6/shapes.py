"""How the dialect shows relations and times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from skerry_server.doors.handling import Call

_METHODS = {
    "task": ["DELETE", "GET"],
    "run": ["GET", "PATCH"],
    "result": ["GET", "PATCH"],
    "rule": ["GET"],
}
_USUAL = ["DELETE", "GET", "PATCH"]


def one(call: Call, resource: str, id_: int | None) -> dict[str, Any] | None:
    """A relation to one thing."""
    if id_ is None:
        return None
    return {"id": id_, "link": call.link(f"{resource}/{id_}"), "methods": _METHODS.get(resource, _USUAL)}


def many(call: Call, resource: str, **filters: int) -> str:
    """A relation to many things: where to ask for them."""
    return call.link(f"{resource}?{'&'.join(f'{name}={value}' for name, value in filters.items())}")


def moment(value: datetime | None) -> str | None:
    """Naive ISO 8601 in UTC, always with microseconds: its clients parse nothing else."""
    return value.isoformat(timespec="microseconds") if value is not None else None
