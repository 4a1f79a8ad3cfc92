"""The labels by which tasks are found, for those tasks that a process of the version before has made."""

from __future__ import annotations

from sqlalchemy import Text, cast, exists, insert, select
from sqlalchemy.orm import Session

from skerry_server.models import Task, task_database

_AT_ONCE = 1000
_UNLABELLED = (
    select(Task.id, Task.databases)
    .where(cast(Task.databases, Text) != "[]", ~exists().where(task_database.c.task_id == Task.id))
    .order_by(Task.id)
    .limit(_AT_ONCE)
)


def are_missing(session: Session) -> bool:
    """Whether a task names databases and can't be found by them. Looks at all tasks."""
    return session.execute(_UNLABELLED.limit(1)).first() is not None


def add_missing(session: Session) -> None:
    """For some of those tasks; to be repeated. Not in SQL: PostgreSQL's functions fail at a NUL character in JSON."""
    found = session.execute(_UNLABELLED.with_for_update(of=Task, key_share=True)).all()
    labels = {(id_, database["label"]) for id_, databases in found for database in databases}
    rows = [{"task_id": id_, "label": label} for id_, label in sorted(labels)]
    if rows:  # another process may have been first
        session.connection().execute(insert(task_database), rows)
