"""The ports of runs, and who is told of them: the runs of the same job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, joinedload

from skerry_server.errors import InvalidRequest, PermissionDenied
from skerry_server.models import Port, Run, Task
from skerry_server.policy import Actor
from skerry_server.services.runs import held_run

ONLY = ("only_children", "only_parent", "only_siblings", "only_self")
FLAGS = (*ONLY, "include_children", "include_parent")


def open_port(session: Session, actor: Actor, run_id: int, attempt: int, *, number: int, label: str | None) -> Port:
    """The same port again is the same row. Raises StaleAttempt, NotKnown or PermissionDenied."""
    run = held_run(session, actor, run_id, attempt)
    port = session.scalar(select(Port).where(Port.run_id == run.id, Port.port == number))
    if port is None:
        port = Port(run_id=run.id, port=number)
        session.add(port)
    port.label = label
    session.flush()
    return port


def close_ports(session: Session, actor: Actor, run_id: int, attempt: int) -> None:
    """Raises StaleAttempt, NotKnown or PermissionDenied."""
    session.execute(delete(Port).where(Port.run_id == held_run(session, actor, run_id, attempt).id))


def addresses(session: Session, actor: Actor, flags: Sequence[str], label: str | None) -> Sequence[Port]:
    """As section 7.4 of the contract has it, with the flags that are set. Raises InvalidRequest."""
    if actor.run is None:
        raise PermissionDenied
    if len(set(flags) & set(ONLY)) > 1:
        raise InvalidRequest("You can only specify one of the only_<...> parameters!")
    statement = select(Port).join(Port.run).where(Run.task_id.in_(_tasks(session, actor.run.task_id, flags)))
    if "only_self" in flags:
        statement = statement.where(Run.organization_id == actor.organization_id)
    if "only_siblings" in flags:
        statement = statement.where(Run.organization_id != actor.organization_id)
    if label is not None:
        statement = statement.where(Port.label == label)
    loaded = (joinedload(Port.run).joinedload(Run.task), joinedload(Port.run).joinedload(Run.node))
    return session.scalars(statement.options(*loaded).order_by(Port.id)).all()


def _tasks(session: Session, own: int, flags: Sequence[str]) -> set[int]:
    parent = session.scalar(select(Task.parent_id).where(Task.id == own))
    children = set(session.scalars(select(Task.id).where(Task.parent_id == own)))
    if "only_children" in flags:
        return children
    if "only_parent" in flags:
        return {parent or own}
    tasks = {own}
    if not set(flags) & set(ONLY):
        tasks |= children if "include_children" in flags else set()
        tasks |= {parent} if "include_parent" in flags and parent is not None else set()
    return tasks
