"""The one call by which a node renews its leases, hears what to do and what to stop; and what its silence means."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.orm import Session, aliased, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from skerry import logs
from skerry.audit import WITNESS, Head, What
from skerry_server.errors import NotKnown
from skerry_server.events import announce, job_topic, node_topic, presence_topic, task_for_topic
from skerry_server.lifecycle import HELD, State, advance
from skerry_server.models import ONLINE_FOR, Node, Run, Task
from skerry_server.policy import Actor
from skerry_server.services.peers import Others, news
from skerry_server.services.runs import end_held
from skerry_server.services.tasks import follow_runs, lock_runs, open_jobs
from skerry_server.trail import UNRECORDED, note

_LOG = logging.getLogger(__name__)
_SWEPT_AT_ONCE = 500
_GIVEN = (joinedload(Run.task).joinedload(Task.parent), joinedload(Run.input))
"""What telling a node of a run takes."""

_HEARD_OF = (
    update(Node.__table__)  # type: ignore[arg-type]
    .where(Node.id == bindparam("node"))
    .values(online=True, last_seen=bindparam("now"))
)
"""Past the unit of work: a sign of life is no deed of anybody, and each call is one. Of two calls of a node the second
waits here for the first, and sees what that claimed."""

_IDS_HELD = select(Run.id).where(Run.node_id == bindparam("node"), Run.state.in_(HELD))
_KEEP = (
    update(Run.__table__)  # type: ignore[arg-type]
    .where(Run.id.in_(bindparam("kept", expanding=True)))
    .values(lease_expires=bindparam("until"))
)
_WAITING = (
    select(Run)
    .where(
        Run.state == State.PENDING,
        Run.organization_id == bindparam("organization"),
        Run.collaboration_id == bindparam("collaboration"),
    )
    .order_by(Run.id)
    .limit(bindparam("capacity"))
    .options(*_GIVEN)
    .with_for_update(skip_locked=True, of=Run, key_share=True)
)
_IS_CHILD = Run.task.has(Task.parent_id.is_not(None))


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says: how many more runs it would start, what it holds (run → attempt), which jobs it remembers.

    ``peers``: of its runs in the VPN, the version of what it knows of the others of their jobs. ``refuses``: why it
    takes no runs at all, not even children of those that it holds.
    """

    capacity: int
    holding: Mapping[int, int]
    jobs: Sequence[int]
    peers: Mapping[int, str] = field(default_factory=dict)
    refuses: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    run_id: int
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    """The difference between what a node holds and what it should."""

    runs: Sequence[Run]
    stop: Sequence[Stop]
    finished_jobs: Sequence[int]
    peers: Sequence[Others] = ()

    @property
    def something(self) -> bool:
        return self.pressing or bool(self.finished_jobs)

    @property
    def pressing(self) -> bool:
        """Whether somebody waits for it; nobody does for the cleaning up after a job."""
        return bool(self.runs or self.stop or self.peers)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One call of a node. ``until``: for so long it holds what it has and what it is given."""

    session: Session
    node: Node
    report: Report
    now: datetime
    until: datetime


def topics(node_id: int, report: Report) -> list[str]:
    """What changes the answer to a node. One without room asks again anyway, as soon as it has some."""
    always = [node_topic(node_id)]
    return [*always, task_for_topic(node_id), *(job_topic(job) for job in report.jobs)] if report.capacity else always


def find_work(session: Session, actor: Actor, report: Report, lease: timedelta, now: datetime) -> Work:
    """Notes that the node is there, renews what it holds and claims what it can take, oldest first."""
    node = _present(session, actor, report, now)
    visit = _Visit(session, node, report, now, now + lease)
    held = {run.id: run for run in lock_runs(session, Run.id.in_(report.holding))} if report.holding else {}
    _adopt(visit, held)
    stop = [
        Stop(run_id, attempt, reason)
        for run_id, attempt in report.holding.items()
        if (reason := _why_stop(held.get(run_id), node, attempt)) is not None
    ]
    stopped = {order.run_id for order in stop}
    again = _forgotten(session, node, held)
    again += [run for run in held.values() if run.id in stopped and run.node_id == node.id and run.state in HELD]
    holding = [run for run in held.values() if run.node_id == node.id and run.state in HELD]
    given = _give(visit, again, holding) if report.refuses is None else []
    if kept := [run.id for run in [*holding, *again]]:
        session.connection().execute(_KEEP, {"kept": kept, "until": visit.until})
    return Work(given, stop, _finished(session, actor, report.jobs), news(session, holding, report.peers))


def witness(session: Session, actor: Actor, head: Head) -> None:
    """Keeps the head of the node's own audit chain where the node can't change it."""
    node = _node(session, actor)
    note(session, WITNESS, What("node", node.id), _belongs(node), **head.as_dict())


def leave(session: Session, actor: Actor, now: datetime) -> None:
    """The node says good-bye: it is offline at once, and what it told of itself is forgotten."""
    node = _node(session, actor)
    node.online, node.last_seen, node.settings, node.refuses = False, now, [], None
    note(session, "node.leave", What("node", node.id), _belongs(node))
    announce(session, [presence_topic(node.id)], now)


def note_absence(session: Session, now: datetime) -> None:
    """Announces the nodes that have not been heard of for a while."""
    silent = session.scalars(select(Node).where(Node.online, Node.last_seen <= now - ONLINE_FOR).limit(_SWEPT_AT_ONCE))
    for node in silent:
        node.online = False
        announce(session, [presence_topic(node.id)], now)


def renew_leases(session: Session, until: datetime) -> None:
    """For a server that starts, or whose clock was set: that silence is none of the nodes'."""
    held = update(Run).where(Run.state.in_(HELD))
    session.execute(held.values(lease_expires=until), execution_options={UNRECORDED: True})


def give_up_lost(session: Session, lost_after: timedelta, now: datetime) -> None:
    """Ends the runs whose leases ran out long ago. Their attempts are fenced; nothing is started again."""
    late = Run.lease_expires <= now - lost_after
    for run in end_held(session, late, State.LOST, "the node was not heard of any more", now, limit=_SWEPT_AT_ONCE):
        _LOG.warning(
            "run %s of task %s: lost, node %s was silent for too long",
            run.id,
            run.task_id,
            run.node_id,
            extra=logs.about(run=run.id, task=run.task_id),
        )


def _present(session: Session, actor: Actor, report: Report, now: datetime) -> Node:
    node = _node(session, actor)
    if not node.is_online(now) or node.refuses != report.refuses:
        announce(session, [presence_topic(node.id)], now)
    if node.refuses != report.refuses:
        node.refuses = report.refuses
    session.connection().execute(_HEARD_OF, {"node": node.id, "now": now})
    set_committed_value(node, "online", True)  # noqa: FBT003 - what the statement wrote
    set_committed_value(node, "last_seen", now)
    return node


def _node(session: Session, actor: Actor) -> Node:
    node = session.get(Node, actor.id)
    if node is None:
        raise NotKnown("node", actor.id)
    return node


def _belongs(node: Node) -> dict[str, int]:
    return {"organization": node.organization_id, "collaboration": node.collaboration_id}


def _forgotten(session: Session, node: Node, held: Collection[int]) -> list[Run]:
    """What the node was given and does not know of: the answer was lost, or its memory.

    There is nothing as a rule, so it is looked for first where an index alone tells.
    """
    given = session.connection().scalars(_IDS_HELD, {"node": node.id})
    missing = [id_ for id_ in given if id_ not in held]
    still = (Run.id.in_(missing), Run.node_id == node.id, Run.state.in_(HELD))
    return list(lock_runs(session, *still, loaded=_GIVEN)) if missing else []


def _why_stop(run: Run | None, node: Node, attempt: int) -> str | None:
    """None for a run that goes on, and for one whose end the node itself reported: it is cleaning up after it."""
    if run is None:
        return "the task was deleted"
    if run.node_id != node.id:
        return "the run belongs to another node"
    if run.attempt != attempt:
        return "the attempt is not the current one"
    return run.reason if run.state.terminal else None


def _lendable(session: Session, holding: Sequence[Run]) -> int:
    """How many places of runs that wait for child tasks of theirs are free for children, which may need them to run.

    Without them as many central functions as a node has places would wait for each other for ever.
    """
    waiting = _waiting(session, [run.id for run in holding])
    working = sum(run.task.parent_id is not None and run.id not in waiting for run in holding)
    return max(len(waiting) - working, 0)


def _waiting(session: Session, ids: Sequence[int]) -> set[int]:
    """Those of the runs that have an open child task."""
    if not ids:
        return set()
    child = aliased(Task)
    made = (child.parent_id == Run.task_id) & (child.init_org_id == Run.organization_id)
    open_child = select(child.id).where(made, child.finished_at.is_(None)).exists()
    return set(session.scalars(select(Run.id).where(Run.id.in_(ids), open_child)))


def _adopt(visit: _Visit, held: Mapping[int, Run]) -> None:
    """Takes the node's word for attempts of its runs that this database has not seen: it was restored from an older."""
    attempts, node = visit.report.holding, visit.node
    waiting = [run for run in held.values() if run.state is State.PENDING and run.node_id == node.id]
    unseen = [run for run in waiting if attempts[run.id] > run.attempt]
    for run in unseen:
        _assign(visit, run, attempts[run.id])
    follow_runs(visit.session, unseen, visit.now)


def _give(visit: _Visit, again: Sequence[Run], holding: Sequence[Run]) -> Sequence[Run]:
    """As many as there is room for, first those that were given before; without a place, children to lend one to."""
    room, conditions = visit.report.capacity, list[ColumnElement[bool]]()
    if not room:
        room, conditions = _lendable(visit.session, holding), [_IS_CHILD]
        again = [run for run in again if run.task.parent_id is not None]
    return [*again[:room], *_claim(visit, room - len(again), *conditions)]


def _claim(visit: _Visit, capacity: int, *conditions: ColumnElement[bool]) -> Sequence[Run]:
    if capacity <= 0:
        return []
    node = visit.node
    here = {"organization": node.organization_id, "collaboration": node.collaboration_id, "capacity": capacity}
    claimed = visit.session.scalars(_WAITING.where(*conditions), here).all()
    for run in claimed:
        _assign(visit, run, run.attempt + 1)
    follow_runs(visit.session, claimed, visit.now)
    if claimed:
        # A call that was broken off may claim for nobody: the one that replaced it has to look again.
        announce(visit.session, [node_topic(node.id)], visit.now)
    return claimed


def _assign(visit: _Visit, run: Run, attempt: int) -> None:
    advance(run, State.INITIALIZING, visit.now)
    run.attempt, run.node_id, run.lease_expires = attempt, visit.node.id, visit.until
    _LOG.info(
        "run %s of task %s: attempt %s claimed by node %s",
        run.id,
        run.task_id,
        run.attempt,
        visit.node.id,
        extra=logs.about(run=run.id, task=run.task_id),
    )


def _finished(session: Session, actor: Actor, jobs: Sequence[int]) -> list[int]:
    """Those of the jobs that have no open task; a job of others, or one that was deleted, has none either."""
    if not jobs:
        return []
    mine = session.scalars(
        select(Task.job_id).where(Task.job_id.in_(jobs), Task.collaboration_id.in_(actor.collaborations))
    )
    still = open_jobs(session, list(jobs)) & set(mine)
    return [job for job in jobs if job not in still]
