"""The runs of a job that reach each other over the VPN: who is told of whom, and the end of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from skerry.wire import canonical
from skerry_server.events import announce, node_topic
from skerry_server.models import Peer, Port, Run


@dataclass(frozen=True, slots=True)
class Others:
    """What one run may know of the other runs of its job; ``version`` changes whenever that does."""

    run_id: int
    attempt: int
    statements: Sequence[dict[str, Any]]

    @property
    def version(self) -> str:
        return hashlib.sha256(canonical(list(self.statements))).hexdigest()[:32]


def others_of(session: Session, run: Run) -> Others:
    """The statements of the job's other runs that are there now."""
    found = session.scalars(select(Peer).where(Peer.job_id == run.task.job_id).order_by(Peer.run_id))
    shown = [peer.statement for peer in found if peer.run_id != run.id and peer.statement is not None]
    return Others(run.id, run.attempt, shown)


def news(session: Session, runs: Sequence[Run], known: Mapping[int, str]) -> list[Others]:
    """For those of a node's runs whose version it names: the others, where they are not these any more."""
    found = [others_of(session, run) for run in runs if run.id in known]
    return [others for others in found if others.version != known[others.run_id]]


def leave(session: Session, runs: Sequence[Run], now: datetime) -> None:
    """These runs have ended: nobody is told of them any more, and their addresses are free."""
    ended = [run.id for run in runs]
    gone = session.scalars(select(Peer).where(Peer.run_id.in_(ended))).all()
    if not gone:
        return
    for peer in gone:
        session.delete(peer)
    session.execute(delete(Port).where(Port.run_id.in_([peer.run_id for peer in gone])))
    session.flush()
    for job in {peer.job_id for peer in gone}:
        tell_job(session, job, now)


def tell_job(session: Session, job_id: int, now: datetime) -> None:
    """Lets the nodes of the job's peers look again."""
    nodes = session.scalars(select(Run.node_id).join(Peer, Peer.run_id == Run.id).where(Peer.job_id == job_id))
    announce(session, [node_topic(node) for node in nodes if node is not None], now)
