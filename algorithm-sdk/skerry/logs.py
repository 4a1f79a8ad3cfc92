"""Log lines that say which run and task they are about, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

_BOUND: ContextVar[Mapping[str, int]] = ContextVar("about", default={})  # noqa: B039 - never changed in place
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

Format = Literal["text", "json"]


def set_up(level: str, form: Format) -> None:
    """All loggers of this process write to standard error from now on. ``level`` as logging names it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _Text(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def about(**ids: int) -> dict[str, Mapping[str, int]]:
    """What one line is about, as the ``extra`` of a call of a logger: ``run=5, task=3``."""
    return {"about": ids}


@contextmanager
def bound(**ids: int) -> Iterator[None]:
    """All lines of this thread or coroutine are about these until the block ends."""
    token = _BOUND.set({**_BOUND.get(), **ids})
    try:
        yield
    finally:
        _BOUND.reset(token)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    return {**_BOUND.get(), **getattr(record, "about", {})}


class _Text(logging.Formatter):
    """What the line does not say itself is added to it."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        missing = [f"{kind}={id_}" for kind, id_ in _about(record).items() if f"{kind} {id_}" not in line]
        return f"{line} [{' '.join(missing)}]" if missing else line


class _JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, what it is about, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
