"""Creating, finding, ending and deleting tasks."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, exists, false, func, insert, or_, select, true, update
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql.base import ExecutableOption

from skerry import logs
from skerry.wire import canonical
from skerry_server import locks
from skerry_server.errors import Conflicting, InvalidRequest, NotKnown, PermissionDenied
from skerry_server.events import announce, end_topic, job_topic, node_topic, task_for_topic, task_topic
from skerry_server.lifecycle import OPEN, State, advance, task_status
from skerry_server.models import Collaboration, Node, Payload, Run, Study, Task, member, task_database
from skerry_server.payloads import PayloadStore
from skerry_server.policy import Actor, Kind, Operation, Resource, Scope
from skerry_server.services import peers
from skerry_server.services.inputs import Given, Maker, Target, take_inputs
from skerry_server.services.sharing import check_asker
from skerry_server.services.stores import store_of_task
from skerry_server.trail import add_row, add_rows

_LOG = logging.getLogger(__name__)
LARGEST_REQUEST = 1 << 30
REPEAT_WINDOW = timedelta(seconds=10)
_AT_ONCE = 500
_LEAD = update(Task.__table__).where(Task.id == bindparam("task")).values(job_id=Task.id)  # type: ignore[arg-type]
"""A task that nobody's run made leads a job of its own; this is no change of it that anybody would be told of."""
_FOLLOW = (
    update(Task.__table__)  # type: ignore[arg-type]
    .where(Task.id == bindparam("task"))
    .values(status=bindparam("status_"), finished_at=bindparam("ended"))
)
_ENDS = (
    select(Task.id, Task.status, Task.finished_at)
    .where(Task.id.in_(bindparam("tasks", expanding=True)))
    .order_by(Task.id)
    .with_for_update(key_share=True)
)
_STATES = select(Run.task_id, Run.state).where(Run.task_id.in_(bindparam("tasks", expanding=True))).distinct()
_BY_UUID = select(Task.id).where(Task.uuid == bindparam("uuid"))
_MEMBERS = (
    select(member.c.organization_id, Node, Collaboration)
    .join(Collaboration, Collaboration.id == member.c.collaboration_id)
    .outerjoin(
        Node,
        and_(Node.collaboration_id == member.c.collaboration_id, Node.organization_id == member.c.organization_id),
    )
    .where(
        member.c.collaboration_id == bindparam("collaboration"),
        member.c.organization_id.in_(bindparam("organizations", expanding=True)),
    )
)
"""Those of the organizations that are members of the collaboration, the node that each has there, and what it is."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a caller asks for."""

    image: str
    targets: tuple[Target, ...]
    collaboration_id: int | None = None
    study_id: int | None = None
    name: str | None = None
    description: str | None = None
    databases: tuple[dict[str, Any], ...] = ()
    uuid: str | None = None
    store_id: int | None = None

    def fingerprint(self) -> str:
        """The same for the same request, whoever makes it."""
        parts = [self.image, self.collaboration_id, self.study_id, self.name, self.description, self.databases]
        targets = [[t.organization_id, hashlib.sha256(t.input.encode()).hexdigest()] for t in self.targets]
        return hashlib.sha256(canonical([*parts, targets])).hexdigest()


def create_task(
    session: Session,
    actor: Actor,
    spec: TaskSpec,
    store: PayloadStore,
    now: datetime,
    *,
    most: int = 10_000,
) -> Task:
    """Writes the task and its runs and announces them; a repeat of the same request gives the first task again.

    A job has at most so many tasks.

    Raises InvalidRequest, NotKnown, PermissionDenied, or Conflicting when the UUID is someone else's.
    """
    parent = _parent(session, actor)
    first = _repeated(session, actor, spec, now)
    if first is not None:
        return first
    if parent is not None:
        _check_room(session, parent.job_id, most)
    place = _where(session, spec)
    collaboration = place.collaboration
    _check_permission(actor, spec, collaboration)
    nodes = _nodes(spec, place)
    check_asker(session, actor, nodes.values(), now)
    if spec.store_id is not None and parent is None:
        store_of_task(session, spec.store_id, collaboration.id)
    task = _new_task(actor, spec, collaboration, parent, now)
    maker = Maker(actor, parent, named=spec.uuid is not None)
    inputs = take_inputs(session, maker, spec.targets, task, collaboration, store=store)
    add_row(session, task)
    _note_labels(session, task)
    if task.job_id is None:
        session.connection().execute(_LEAD, {"task": task.id})
        set_committed_value(task, "job_id", task.id)
    runs = _add_runs(session, task, inputs, nodes, store)
    topic = task_for_topic if parent is None else node_topic
    announce(session, [topic(nodes[target.organization_id].id) for target in spec.targets], now)
    _LOG.info(
        "task %s of job %s: created by %s, runs %s",
        task.id,
        task.job_id,
        actor.label,
        runs,
        extra=logs.about(task=task.id),
    )
    return task


def _check_room(session: Session, job: int | None, most: int) -> None:
    """Raises InvalidRequest for a job that has all the tasks that it may have: an algorithm could go on for ever."""
    if (session.scalar(select(func.count()).where(Task.job_id == job)) or 0) >= most:
        raise InvalidRequest(f"Job {job} has {most} tasks: this server takes no more for one job.")


def find_task(session: Session, actor: Actor, task_id: int, loaded: Sequence[ORMOption] = ()) -> Task:
    """Raises NotKnown or PermissionDenied."""
    task = session.get(Task, task_id, options=loaded)
    if task is None:
        raise NotKnown("task", task_id)
    if not session.scalar(select(exists().where(Task.id == task_id, visible_tasks(actor)))):
        raise PermissionDenied
    return task


def visible_tasks(actor: Actor) -> ColumnElement[bool]:
    """The condition that a task may be seen by this caller."""
    scopes = actor.scopes(Resource.TASK, Operation.VIEW)
    if actor.run is not None:
        return Task.job_id == actor.run.job_id
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.COLLABORATION in scopes:
        reached.append(Task.collaboration_id.in_(actor.collaborations))
    if Scope.ORGANIZATION in scopes:
        reached.append(Task.init_org_id == actor.organization_id)
    if Scope.OWN in scopes and actor.kind is Kind.USER:
        reached.append(Task.init_user_id == actor.id)
    return or_(*reached)


def kill_task(session: Session, actor: Actor, task_id: int, now: datetime) -> Task:
    """Ends all open runs of a task and of its descendants. Raises NotKnown, PermissionDenied or InvalidRequest."""
    task = session.get(Task, task_id)
    if task is None:
        raise NotKnown("task", task_id)
    if not _may_kill(actor, task):
        raise PermissionDenied
    if task.finished_at is not None or not end_tasks(session, [task], "killed by user", now):
        raise InvalidRequest(f"Task {task_id} already finished with status '{task.status}', so can't be killed.")
    return task


def delete_task(session: Session, actor: Actor, task_id: int, now: datetime) -> list[Payload]:
    """Deletes a task, its descendants and all their runs; running ones are stopped.

    Gives the payloads, whose files the caller removes once this is committed. Raises NotKnown or PermissionDenied.
    """
    task = session.get(Task, task_id)
    if task is None:
        raise NotKnown("task", task_id)
    belongs: dict[str, Any] = {"organizations": [task.init_org_id], "collaborations": [task.collaboration_id]}
    if not actor.may(Resource.TASK, Operation.DELETE, owner=task.init_user_id, **belongs):
        raise PermissionDenied
    return remove_tasks(session, [task, *descendants(session, [task.id])], now)


def remove_runs(session: Session, which: ColumnElement[bool], now: datetime) -> list[Payload]:
    """Ends and deletes runs of tasks that stay; the payloads' files are the caller's to remove."""
    end_runs(session, which, "the organization was deleted", now)
    return _remove(session, session.scalars(select(Run).where(which)).all(), ())


def remove_tasks(session: Session, tasks: Sequence[Task], now: datetime) -> list[Payload]:
    """Ends what is open, then deletes; the payloads' files are the caller's to remove."""
    end_tasks(session, tasks, "the task was deleted", now)
    portions = _portions([task.id for task in tasks])
    asked = (session.scalars(select(Run).where(Run.task_id.in_(some)).order_by(Run.id)) for some in portions)
    runs = [run for found in asked for run in found]
    return _remove(session, runs, sorted(tasks, key=lambda task: task.id, reverse=True))


def _remove(session: Session, runs: Sequence[Run], tasks: Sequence[Task]) -> list[Payload]:
    """Deletes them and the runs' payloads, which it gives: in one flush, so all rows of a kind by one statement."""
    payloads = _payloads(session, runs)
    for row in [*runs, *tasks, *payloads]:
        session.delete(row)
    session.flush()
    return payloads


def _payloads(session: Session, runs: Sequence[Run]) -> list[Payload]:
    ids = sorted({id_ for run in runs for id_ in (run.input_id, run.result_id, run.staged_id) if id_ is not None})
    asked = (session.scalars(select(Payload).where(Payload.id.in_(some))) for some in _portions(ids))
    return [payload for found in asked for payload in found]


def _portions(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Databases bound how many values one statement may have."""
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def end_tasks(session: Session, tasks: Sequence[Task], reason: str, now: datetime) -> int:
    """Kills the open runs of these tasks and of all below them, and tells their nodes; gives how many there were.

    Level by level: no open run makes a child task once it is locked, so the next level is complete when it is read.
    """
    level, ended = [task.id for task in tasks], 0
    while level:
        below: list[int] = []
        for some in _portions(level):
            ended += len(end_runs(session, Run.task_id.in_(some), reason, now))
            below += session.scalars(select(Task.id).where(Task.parent_id.in_(some)))
        level = below
    return ended


def end_open_tasks(session: Session, which: ColumnElement[bool], reason: str, now: datetime) -> None:
    """Kills what is open of these tasks and of all tasks below them."""
    end_tasks(session, list(session.scalars(select(Task).where(which, Task.finished_at.is_(None)))), reason, now)


def end_runs(session: Session, which: ColumnElement[bool], reason: str, now: datetime) -> Sequence[Run]:
    """Kills those of the runs that are still open, which it gives, and tells their nodes; the tasks follow."""
    runs = lock_runs(session, which, Run.state.in_(OPEN))
    for run in runs:
        run.reason = reason
        advance(run, State.KILLED, now)
        _LOG.info(
            "run %s of task %s: killed, %s", run.id, run.task_id, reason, extra=logs.about(run=run.id, task=run.task_id)
        )
    announce(session, [node_topic(run.node_id) for run in runs if run.node_id is not None], now)
    peers.leave(session, runs, now)
    follow_runs(session, runs, now)
    return runs


def end_runs_and_children(session: Session, which: ColumnElement[bool], reason: str, now: datetime) -> None:
    """Kills those of the runs that are still open, and all tasks that they have made, at whichever nodes."""
    for some in _portions([run.id for run in end_runs(session, which, reason, now)]):
        made = session.scalars(select(Task).where(Task.parent_run_id.in_(some))).all()
        end_tasks(session, made, reason, now)


def lock_runs(
    session: Session,
    *which: ColumnElement[bool],
    limit: int | None = None,
    loaded: Sequence[ExecutableOption] = (joinedload(Run.task),),
) -> Sequence[Run]:
    """The runs with their tasks, as they are now; until the transaction ends nobody else changes them."""
    statement = select(Run).where(*which).options(*loaded).order_by(Run.id).limit(limit)
    locked = statement.with_for_update(of=Run, key_share=True).execution_options(populate_existing=True)
    return session.scalars(locked).all()


def follow_runs(session: Session, runs: Iterable[Run], now: datetime) -> None:
    """Makes the status and end of these runs' tasks follow all their runs, and tells who waits for them.

    The tasks are locked, in an order that is always the same: of two last runs that end in the same moment the second
    sees the first.
    """
    tasks = {run.task_id: run.task for run in runs}
    session.flush()
    for ids in _portions(sorted(tasks)):
        _lock_ends(session, tasks, ids)
        _follow(session, tasks, _states(session, ids), now)
        _tell(session, [tasks[id_] for id_ in ids], now)


def _lock_ends(session: Session, tasks: Mapping[int, Task], ids: Sequence[int]) -> None:
    """Nobody else changes the status and the end of these tasks from now on, and the tasks have both as they are."""
    for id_, status, finished_at in session.connection().execute(_ENDS, {"tasks": ids}):
        set_committed_value(tasks[id_], "status", status)
        set_committed_value(tasks[id_], "finished_at", finished_at)


def _states(session: Session, task_ids: Sequence[int]) -> Mapping[int, set[State]]:
    """In which states the runs of each task are."""
    found: defaultdict[int, set[State]] = defaultdict(set)
    for task_id, state in session.connection().execute(_STATES, {"tasks": task_ids}):
        found[task_id].add(state)
    return found


def _follow(session: Session, tasks: Mapping[int, Task], states: Mapping[int, set[State]], now: datetime) -> None:
    """Past the unit of work: it is no deed of anybody, and comes with each step of each run."""
    changes = []
    for task_id, found in states.items():
        task, status = tasks[task_id], task_status(found)
        ended = task.finished_at or (now if all(state.terminal for state in found) else None)
        if (status, ended) != (task.status, task.finished_at):
            changes.append({"task": task_id, "status_": status, "ended": ended})
            set_committed_value(task, "status", status)
            set_committed_value(task, "finished_at", ended)
    if changes:
        session.connection().execute(_FOLLOW, changes)


def _tell(session: Session, tasks: Sequence[Task], now: datetime) -> None:
    """Of a job none of whose tasks is open nodes hear, too: they may clean up what they keep for it."""
    finished = [task for task in tasks if task.finished_at is not None]
    ended = {task.job_id for task in finished if task.job_id is not None}
    over = ended - open_jobs(session, sorted(ended))
    ends = [*(end_topic(task.id) for task in finished), *(job_topic(job) for job in over)]
    announce(session, [*(task_topic(task.id) for task in tasks), *ends], now)


def descendants(session: Session, task_ids: Sequence[int]) -> list[Task]:
    """All tasks below these."""
    tree = select(Task.id).where(Task.parent_id.in_(task_ids)).cte("descendants", recursive=True)
    tree = tree.union(select(Task.id).join(tree, Task.parent_id == tree.c.id))
    return list(session.scalars(select(Task).where(Task.id.in_(select(tree.c.id))).order_by(Task.id)))


def children_of_run(session: Session, run_id: int) -> list[Task]:
    """The tasks that this run created."""
    return list(session.scalars(select(Task).where(Task.parent_run_id == run_id)))


# --- the steps of creating a task ------------------------------------------------------------------------


def _parent(session: Session, actor: Actor) -> Task | None:
    """The task of the run that asks. It stays open until its child is there: who ends it sees the child, too."""
    if actor.run is None:
        return None
    still = select(Run.state).where(Run.id == actor.id, Run.state.in_(OPEN))
    if session.scalar(still.with_for_update(read=True)) is None:
        raise PermissionDenied("This run has ended, and with it its token.")
    return session.get(Task, actor.run.task_id)


def _repeated(session: Session, actor: Actor, spec: TaskSpec, now: datetime) -> Task | None:
    """The task that the same actor made by the same request: by its UUID, else by its content, for a short while."""
    if spec.uuid is not None:
        id_ = session.connection().scalar(_BY_UUID, {"uuid": spec.uuid})
        task = session.get(Task, id_) if id_ is not None else None
        if task is not None and task.creator != actor.label:
            raise Conflicting("This task UUID can't be used: make a new one.")
        return task
    locks.hold(session, f"task {actor.label} {spec.fingerprint()}")
    same = select(Task).where(Task.creator == actor.label, Task.fingerprint == spec.fingerprint())
    return session.scalar(same.where(Task.created_at >= now - REPEAT_WINDOW).order_by(Task.id.desc()).limit(1))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a task is wanted; ``members``: those of its targets that are in the collaboration, each with its node."""

    collaboration: Collaboration
    study: Study | None
    members: Mapping[int, Node | None]


def _where(session: Session, spec: TaskSpec) -> _Place:
    study = session.get(Study, spec.study_id) if spec.study_id is not None else None
    collaboration_id = spec.collaboration_id
    if collaboration_id is None and study is not None:
        collaboration_id = study.collaboration_id
    if collaboration_id is None:
        if spec.study_id is not None:
            raise NotKnown("study", spec.study_id)
        raise InvalidRequest('Either "collaboration_id" or "study_id" is needed.')
    wanted = [target.organization_id for target in spec.targets]
    found = session.execute(_MEMBERS, {"collaboration": collaboration_id, "organizations": wanted}).all()
    collaboration = found[0].Collaboration if found else session.get(Collaboration, collaboration_id)
    if collaboration is None:
        raise NotKnown("collaboration", collaboration_id)
    if spec.study_id is not None and study is None:
        raise NotKnown("study", spec.study_id)
    if study is not None and study.collaboration_id != collaboration.id:
        raise InvalidRequest(f"Study {study.id} is not part of collaboration {collaboration.id}.")
    return _Place(collaboration, study, {row.organization_id: row.Node for row in found})


def _nodes(spec: TaskSpec, place: _Place) -> dict[int, Node]:
    """The node of each target. Raises InvalidRequest that names the organizations at fault."""
    wanted = [target.organization_id for target in spec.targets]
    if len(set(wanted)) != len(wanted):
        raise InvalidRequest('An organization appears twice in "organizations": each gets one input.')
    collaboration, study = place.collaboration, place.study
    _refuse(wanted, place.members, f"not in collaboration {collaboration.id}")
    if study is not None:
        _refuse(wanted, {organization.id for organization in study.organizations}, f"not in study {study.id}")
    nodes = {id_: node for id_, node in place.members.items() if node is not None}
    missing = [str(id_) for id_ in wanted if id_ not in nodes]
    if missing:
        raise InvalidRequest(
            f"There is no node in collaboration {collaboration.id} for organization(s) {', '.join(missing)}: "
            "their administrator creates one first."
        )
    return nodes


def _refuse(wanted: Iterable[int], among: Collection[int], what: str) -> None:
    outside = sorted(set(wanted).difference(among))
    if outside:
        raise InvalidRequest(
            f"Organization(s) {', '.join(map(str, outside))}: {what}, or there is no such organization."
        )


def check_may_create(actor: Actor, collaboration_id: int) -> None:
    """For a user who wants a task made. Raises PermissionDenied."""
    if collaboration_id not in actor.collaborations:
        raise PermissionDenied(
            "Your organization is not a member of this collaboration, so it can't create tasks in it."
        )
    if not actor.may(Resource.TASK, Operation.CREATE, collaborations=[collaboration_id]):
        raise PermissionDenied


def _check_permission(actor: Actor, spec: TaskSpec, collaboration: Collaboration) -> None:
    if actor.run is not None:
        same_image = actor.run.image == spec.image or spec.image.endswith(actor.run.image)
        if not same_image or collaboration.id != actor.run.collaboration_id:
            raise PermissionDenied(
                "Container-token is not valid: a child task has its parent's image and collaboration."
            )
        return
    check_may_create(actor, collaboration.id)


def _new_task(actor: Actor, spec: TaskSpec, collaboration: Collaboration, parent: Task | None, now: datetime) -> Task:
    return Task(
        uuid=spec.uuid or str(uuid.uuid4()),
        creator=actor.label,
        fingerprint=spec.fingerprint(),
        name=spec.name,
        description=spec.description,
        image=parent.image if parent is not None else spec.image,
        collaboration_id=collaboration.id,
        study_id=spec.study_id,
        init_org_id=actor.organization_id,
        init_user_id=parent.init_user_id if parent is not None else actor.id,
        parent_id=parent.id if parent is not None else None,
        parent_run_id=actor.id if actor.run is not None else None,
        job_id=parent.job_id if parent is not None else None,
        store_id=parent.store_id if parent is not None else spec.store_id,
        databases=list(spec.databases),
        status=task_status([State.PENDING]),
        created_at=now,
    )


def _note_labels(session: Session, task: Task) -> None:
    labels = {database["label"] for database in task.databases}
    if labels:
        rows = [{"task_id": task.id, "label": label} for label in sorted(labels)]
        session.connection().execute(insert(task_database), rows)


def _add_runs(
    session: Session, task: Task, inputs: Sequence[Given], nodes: Mapping[int, Node], store: PayloadStore
) -> Sequence[int]:
    rows = [
        {
            "task_id": task.id,
            "organization_id": given.organization_id,
            "collaboration_id": task.collaboration_id,
            "node_id": nodes[given.organization_id].id,
            "state": State.PENDING,
            "attempt": 0,
            "input_id": payload,
            "assigned_at": task.created_at,
        }
        for given, payload in zip(inputs, _add_payloads(session, inputs, store), strict=True)
    ]
    return add_rows(session, Run, rows)


def _add_payloads(session: Session, inputs: Sequence[Given], store: PayloadStore) -> list[int]:
    kept = [given.keep(store) for given in inputs]
    new = [payload for given, payload in zip(inputs, kept, strict=True) if given.blob is None]
    ids = iter(add_rows(session, Payload, [{"size": one.size, "inline": one.inline, "file": one.file} for one in new]))
    return [next(ids) if given.blob is None else payload.id for given, payload in zip(inputs, kept, strict=True)]


def _may_kill(actor: Actor, task: Task) -> bool:
    if actor.kind is not Kind.USER:
        return False
    here = [task.collaboration_id]
    own = task.init_user_id == actor.id and actor.may(Resource.TASK, Operation.CREATE, collaborations=here)
    return own or actor.may(Resource.EVENT, Operation.SEND, collaborations=here)


def open_jobs(session: Session, job_ids: Sequence[int]) -> set[int]:
    """Those of the jobs that still have an open task."""
    if not job_ids:
        return set()
    session.flush()
    statement = select(Task.job_id).where(Task.job_id.in_(job_ids), Task.finished_at.is_(None)).distinct()
    return {job_id for job_id in session.scalars(statement) if job_id is not None}
