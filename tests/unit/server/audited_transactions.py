"""Looks at the SQL alone: a committed transaction that changed a row without adding to the audit trail is a fault."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Engine, event

_CHANGE = re.compile(r'(INSERT INTO|UPDATE|DELETE FROM) "?(\w+)"?(?: SET (.*?) WHERE)?', re.DOTALL)
_COLUMN = re.compile(r'"?(\w+)"?=')
# What nobody has to answer for: hints, payloads' bytes, the trail itself; signs of life, and what follows from others.
SILENT_TABLES = {
    "event",
    "payload",
    "audit",
    "audit_head",
    "rule",
    "node_setting",
    "failure",
    "sqlite_sequence",
    "answered",
}
SILENT_COLUMNS = {
    "node": {"online", "last_seen"},
    "run": {"lease_expires", "live_log", "log", "cleanup_at"},
    "task": {"status", "finished_at", "job_id"},
    "user": {"last_seen", "failed_logins", "otp_step"},
}


def watch_transactions(engine: Engine) -> list[str]:
    """From now on; the list grows with what was changed and not recorded."""
    faults: list[str] = []
    changed: dict[Any, list[str]] = {}
    recorded: set[Any] = set()

    def execute(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found = _CHANGE.match(statement.strip())
        if found is None:
            return
        if found[2] == "audit":
            recorded.add(connection.connection.dbapi_connection)
        elif found[2] not in SILENT_TABLES and not _silent(found[2], found[3]):
            changed.setdefault(connection.connection.dbapi_connection, []).append(statement)

    def end(connection: Any, *, committed: bool) -> None:
        if connection.invalidated:  # cut off: nothing of it was kept
            return
        key = connection.connection.dbapi_connection
        statements = changed.pop(key, [])
        if committed and statements and key not in recorded:
            faults.extend(statements)
        recorded.discard(key)

    event.listen(engine, "after_cursor_execute", execute)
    event.listen(engine, "commit", lambda connection: end(connection, committed=True))
    event.listen(engine, "rollback", lambda connection: end(connection, committed=False))
    return faults


def _silent(table: str, columns: str | None) -> bool:
    return columns is not None and set(_COLUMN.findall(columns)) <= SILENT_COLUMNS.get(table, set())
