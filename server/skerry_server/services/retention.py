"""What finished runs carried is removed after a while; that they ran, and the audit trail, stay."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased, joinedload

from skerry.audit import What
from skerry_server.models import Run, Task
from skerry_server.trail import note

_LOG = logging.getLogger(__name__)
_AT_ONCE = 500


def clean_up(session: Session, kept: timedelta, now: datetime) -> list[str]:
    """Removes inputs, results and logs of runs that ended so long ago, as far as nothing of their job is open.

    At most 500 runs at a time, oldest first. Gives the names of files, which the caller removes.
    """
    other = aliased(Task)
    job_is_open = select(other.id).where(other.job_id == Task.job_id, other.finished_at.is_(None)).exists()
    old = (
        select(Run)
        .join(Run.task)
        .where(Run.finished_at <= now - kept, Run.cleanup_at.is_(None), ~job_is_open)
        .order_by(Run.finished_at)
        .limit(_AT_ONCE)
        .options(joinedload(Run.input), joinedload(Run.result), joinedload(Run.staged))
    )
    runs = session.scalars(old.with_for_update(of=Run, key_share=True, skip_locked=True)).all()
    payloads = [payload for run in runs for payload in (run.input, run.result, run.staged) if payload is not None]
    files = [payload.file for payload in payloads if payload.file is not None]
    for payload in payloads:
        payload.inline = payload.file = payload.blob = None
    for run in runs:
        run.cleanup_at, run.log = now, None
    if runs:
        note(session, "run.clean_up", What("run"), runs=len(runs), first=runs[0].id, last=runs[-1].id)
        _LOG.info("what %s finished runs carried was removed", len(runs))
    return files
