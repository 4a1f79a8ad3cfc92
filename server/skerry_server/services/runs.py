"""What a node or a run itself reports, fenced by the attempt; and who may see a run, its input and its result."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, false, or_, select, true
from sqlalchemy.orm import Session, joinedload, undefer
from sqlalchemy.sql.base import ExecutableOption

from skerry import logs
from skerry.audit import What
from skerry.crypto import parse_header
from skerry.wire import End, Format, Status, detect_format, to_stored
from skerry_server.blobforms import header_size
from skerry_server.errors import InvalidRequest, NotKnown, PermissionDenied, Removed, StaleAttempt
from skerry_server.events import announce, task_topic
from skerry_server.lifecycle import HELD, State, advance, reported
from skerry_server.models import Payload, Run, Task
from skerry_server.payloads import Part, PayloadStore
from skerry_server.policy import Actor, Kind, Operation, Resource, Scope
from skerry_server.services import peers
from skerry_server.services.tasks import children_of_run, end_tasks, follow_runs, lock_runs
from skerry_server.trail import note

_LOG = logging.getLogger(__name__)
DIGESTED = 512
"""The first bytes of a sealed result, which no other has."""

_BY_NODE = frozenset({Status.INITIALIZING, Status.ACTIVE})
_BEFORE_THE_END = _BY_NODE | {Status.PENDING}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: ``result`` inline as the string of the wire, or ``staged`` before."""

    attempt: int
    status: End
    log: str | None = None
    result: str | None = None
    staged: bool = False


def find_run(session: Session, actor: Actor, run_id: int) -> Run:
    """Raises NotKnown or PermissionDenied."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotKnown("run", run_id)
    seen = select(exists().where(Run.id == run_id, visible_runs(actor)))
    if not session.scalar(seen):
        raise PermissionDenied
    return run


def visible_runs(actor: Actor) -> ColumnElement[bool]:
    """The condition, on Run alone, that a run may be seen by this caller."""
    if actor.run is not None:
        return Run.task_id.in_(select(Task.id).where(Task.job_id == actor.run.job_id))
    if actor.kind is Kind.NODE:
        return and_(Run.organization_id == actor.organization_id, Run.collaboration_id.in_(actor.collaborations))
    return _reached(actor)


def visible_results(actor: Actor) -> ColumnElement[bool]:
    """The same for results: a run reads only those that were made for its own organization."""
    if actor.run is not None:
        mine = (Task.job_id == actor.run.job_id, Task.init_org_id == actor.organization_id)
        return Run.task_id.in_(select(Task.id).where(*mine))
    return visible_runs(actor)


def find_result(session: Session, actor: Actor, run_id: int) -> Run:
    """The run whose result this is. Raises NotKnown or PermissionDenied."""
    run = find_run(session, actor, run_id)
    seen = select(exists().where(Run.id == run_id, visible_results(actor)))
    if not session.scalar(seen):
        raise PermissionDenied
    return run


def report_status(
    session: Session, actor: Actor, run_id: int, attempt: int, status: Status, *, lease: timedelta, now: datetime
) -> Run:
    """A step on the way of an open run; renews its lease. Raises StaleAttempt, NotKnown or PermissionDenied."""
    if status not in _BY_NODE:
        raise InvalidRequest('"status" must be "initializing" or "active"; an end is reported by "finish".')
    run = held_run(session, actor, run_id, attempt)
    run.lease_expires = now + lease
    if run.state.shown is not status:
        advance(run, reported(status), now)
        follow_runs(session, [run], now)
    return run


def show_log(session: Session, actor: Actor, run_id: int, attempt: int, log: str, *, now: datetime) -> None:
    """What an open run has logged so far, for those who wait. Raises StaleAttempt, NotKnown or PermissionDenied."""
    run = held_run(session, actor, run_id, attempt)
    run.log = log
    run.live_log += 1
    announce(session, [task_topic(run.task_id)], now)


def finish_run(
    session: Session, actor: Actor, run_id: int, outcome: Outcome, *, store: PayloadStore, now: datetime
) -> tuple[Run, Payload | None]:
    """Ends a run, once. Repeating the same end of the same attempt changes nothing and is fine.

    Also gives a staged payload that nobody needs any more, whose file the caller removes after the commit.
    Raises StaleAttempt, InvalidRequest, NotKnown or PermissionDenied.
    """
    if outcome.status in _BEFORE_THE_END:
        raise InvalidRequest('"status" must be one of those that end a run.')
    run = _own_run(session, actor, run_id, outcome.attempt, joinedload(Run.input).load_only(Payload.blob))
    if run.state.terminal:
        _repeat(run, outcome)
        return run, None
    dropped = _take_result(run, outcome, store)
    _name_result(run)
    run.log, run.live_log = outcome.log, 0
    advance(run, reported(outcome.status), now)
    end_run(session, run, now)
    _LOG.info(
        "run %s of task %s: attempt %s ended: %s",
        run.id,
        run.task_id,
        run.attempt,
        outcome.status,
        extra=logs.about(run=run.id, task=run.task_id),
    )
    return run, dropped


def end_run(session: Session, run: Run, now: datetime) -> None:
    """What follows a run's end: its task's status, and the end of its children when it failed."""
    run.lease_expires = None
    peers.leave(session, [run], now)
    follow_runs(session, [run], now)
    if run.state.shown.failed:
        end_tasks(session, children_of_run(session, run.id), f"its parent's run {run.id} failed", now)


def end_held(
    session: Session,
    which: ColumnElement[bool],
    state: State,
    reason: str,
    now: datetime,
    *,
    limit: int | None = None,
) -> Sequence[Run]:
    """Ends those of the runs that nodes hold, which it gives; not a child that its parent has taken along just now."""
    ended = list[Run]()
    for run in lock_runs(session, which, Run.state.in_(HELD), limit=limit):
        if run.state in HELD:
            run.reason = reason
            advance(run, state, now)
            end_run(session, run, now)
            ended.append(run)
    return ended


def held_run(session: Session, actor: Actor, run_id: int, attempt: int) -> Run:
    """The caller's own open run at its current attempt. Raises StaleAttempt, NotKnown or PermissionDenied."""
    run = _own_run(session, actor, run_id, attempt)
    if run.state not in HELD:
        raise StaleAttempt(f'Run {run_id} is "{run.state.shown}".')
    return run


def renew_token(session: Session, actor: Actor, run_id: int, attempt: int) -> Run:
    """The run for which a fresh token may be made. Raises StaleAttempt, NotKnown or PermissionDenied."""
    run = held_run(session, actor, run_id, attempt)
    belongs = {"organization": run.organization_id, "collaboration": run.collaboration_id, "task": run.task_id}
    note(session, "token.run", What("run", run.id), {**belongs, "run": run.id}, attempt=attempt)
    return run


def stage_result(session: Session, actor: Actor, run_id: int, attempt: int, payload: Payload) -> Payload | None:
    """Puts an uploaded result aside for ``finish``; gives the one that it replaces, whose file the caller removes."""
    run = held_run(session, actor, run_id, attempt)
    replaced = run.staged
    run.staged, run.staged_attempt = payload, attempt
    if replaced is not None:
        session.flush()
        session.delete(replaced)
    return replaced


def part_of(run: Run, digest: str | None) -> Part:
    """By what the store knows the result of the run's attempt while it is being uploaded.

    ``digest``: of its first ``DIGESTED`` bytes, where its sender says so.
    """
    return Part(f"run {run.id}", f"result {digest} of attempt {run.attempt}")


def check_kept(run: Run) -> None:
    """Raises Removed when the server has removed what the run carried."""
    if run.cleanup_at is not None:
        raise Removed(run.id)


def check_speaker(actor: Actor, run_id: int) -> None:
    """Raises PermissionDenied when a run speaks for another."""
    if actor.kind is Kind.RUN and actor.id != run_id:
        raise PermissionDenied("This token belongs to another run.")


def _own_run(session: Session, actor: Actor, run_id: int, attempt: int, *more: ExecutableOption) -> Run:
    check_speaker(actor, run_id)
    statement = select(Run).where(Run.id == run_id).options(joinedload(Run.task), undefer(Run.log), *more)
    locked = statement.with_for_update(of=Run, key_share=True).execution_options(populate_existing=True)
    run = session.scalar(locked)
    if run is None:
        raise NotKnown("run", run_id)
    mine = run.node_id == actor.id if actor.kind is Kind.NODE else actor.kind is Kind.RUN
    if not mine:
        _not_mine(actor, run)
    if run.attempt != attempt:
        raise StaleAttempt(f"Attempt {attempt} of run {run_id} is not the current one.")
    return run


def _not_mine(actor: Actor, run: Run) -> None:
    if run.organization_id == actor.organization_id and run.collaboration_id in actor.collaborations:
        raise StaleAttempt(f"Run {run.id} was given to another node.")
    raise PermissionDenied


def _repeat(run: Run, outcome: Outcome) -> None:
    """A killed run's node may still say what the container had written; else the end must be the recorded one."""
    if outcome.status is not run.state.shown and reported(outcome.status) is not run.state:
        raise StaleAttempt(f'Run {run.id} ended as "{run.state.shown}".')
    if run.state is State.KILLED and (run.log is None or run.live_log):
        run.log, run.live_log = outcome.log, 0


def _take_result(run: Run, outcome: Outcome, store: PayloadStore) -> Payload | None:
    """Makes the given or staged result the run's; gives the staged one when it is not needed."""
    staged, run.staged, run.staged_attempt = run.staged, None, None
    if outcome.result is not None:
        run.result = _keep_result(run, outcome.result, store)
        return staged
    if outcome.staged:
        if staged is None:
            raise InvalidRequest('Nothing was uploaded for this attempt, so "staged" can\'t be true.')
        run.result = staged
        return None
    if outcome.status is Status.COMPLETED:
        raise InvalidRequest('A completed run needs its "result", or "staged" after an upload.')
    return staged


def _name_result(run: Run) -> None:
    """A run whose input came as a blob gives its result as one: so its asker's client understands it.

    So does one with a large native result, which is fetched as a stream: lists of results stay small.
    """
    if run.result is None:
        return
    is_stream = run.task.format is Format.NATIVE and run.result.file is not None
    if is_stream or run.input.blob is not None:
        run.result.blob, run.result.format = str(uuid.uuid4()), run.task.format


def _keep_result(run: Run, text: str, store: PayloadStore) -> Payload:
    format_ = run.task.format
    try:
        if detect_format(text) is not format_:
            raise InvalidRequest(f'"result" must be {format_}, as the input of the run was.')
        stored = to_stored(text, format_)
    except ValueError as error:
        raise InvalidRequest('"result" is not base64.') from error
    check_sealed(run, stored, "result")
    return store.keep([stored], len(stored))


def check_sealed(run: Run, start: bytes, direction: str) -> None:
    """Refuses what has not the format of the run's input, and a native envelope that belongs elsewhere.

    ``start`` is its beginning. Raises InvalidRequest.
    """
    if run.task.format is Format.VANTAGE6 and not header_size(start):
        raise InvalidRequest(f'"{direction}" is not an encrypted text of vantage6\'s format.')
    if run.task.format is not Format.NATIVE:
        return
    try:
        context = parse_header(start).context
    except ValueError as error:
        raise InvalidRequest(f'"{direction}" must be a native envelope: {error}') from error
    found = (context.direction, context.task, context.attempt, context.sender, context.recipient)
    wanted = (direction, run.task.uuid, run.attempt, run.organization_id, run.task.init_org_id)
    if found != wanted:
        raise InvalidRequest(f'"{direction}" was sealed for another task, attempt, sender or recipient.')


def _reached(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.RUN, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.COLLABORATION in scopes:
        reached.append(Run.collaboration_id.in_(actor.collaborations))
    if Scope.ORGANIZATION in scopes:
        reached.append(Run.organization_id == actor.organization_id)
        reached.append(Run.task.has(Task.init_org_id == actor.organization_id))
    if Scope.OWN in scopes:
        reached.append(Run.task.has(Task.init_user_id == actor.id))
    return or_(*reached)
