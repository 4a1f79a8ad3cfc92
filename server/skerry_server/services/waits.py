"""How far a task has come, for those who wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from skerry.wire import Status
from skerry_server.events import end_topic, presence_topic, task_topic, user_topic
from skerry_server.models import Run
from skerry_server.policy import Actor, Kind
from skerry_server.services.tasks import find_task


@dataclass(frozen=True, slots=True)
class RunProgress:
    id: int
    organization_id: int
    node_id: int | None
    status: Status
    node_online: bool
    node_refuses: str | None
    live_log: int


@dataclass(frozen=True, slots=True)
class Progress:
    """``finished``: all runs have ended, however."""

    task_id: int
    status: Status
    finished: bool
    runs: Sequence[RunProgress]


def topics(session: Session, actor: Actor, task_id: int) -> list[str]:
    """What changes the progress: the task's runs, and the coming and going of their nodes; and who asks."""
    nodes = session.scalars(select(Run.node_id).where(Run.task_id == task_id, Run.node_id.is_not(None)))
    presences = [presence_topic(node_id) for node_id in nodes if node_id is not None]
    return [task_topic(task_id), *presences, *_own(actor)]


def end_topics(actor: Actor, task_id: int) -> list[str]:
    """The end of the task; and who asks."""
    return [end_topic(task_id), *_own(actor)]


def _own(actor: Actor) -> list[str]:
    return [user_topic(actor.id)] if actor.kind is Kind.USER else []


def progress(session: Session, actor: Actor, task_id: int, now: datetime) -> Progress:
    """Raises NotKnown or PermissionDenied."""
    task = find_task(session, actor, task_id)
    runs = session.scalars(select(Run).where(Run.task_id == task_id).options(joinedload(Run.node)).order_by(Run.id))
    shown = [
        RunProgress(
            run.id,
            run.organization_id,
            run.node_id,
            run.state.shown,
            node_online=run.node is not None and run.node.is_online(now),
            node_refuses=run.node.why_not(now) if run.node is not None else None,
            live_log=run.live_log,
        )
        for run in runs
    ]
    return Progress(task.id, task.status, task.finished_at is not None, shown)
