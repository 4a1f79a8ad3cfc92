"""How a run comes to be reached over the VPN: its address, and what its organization says of it."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from skerry import peering
from skerry.errors import CryptoError
from skerry_server import locks
from skerry_server.errors import InvalidRequest
from skerry_server.models import Collaboration, Peer, Port
from skerry_server.policy import Actor
from skerry_server.services.peers import Others, others_of, tell_job
from skerry_server.services.runs import held_run


def reserve_address(session: Session, actor: Actor, run_id: int, attempt: int, subnet: IPv4Network) -> IPv4Address:
    """The run's address until it ends. Raises StaleAttempt, InvalidRequest, NotKnown or PermissionDenied."""
    run = held_run(session, actor, run_id, attempt)
    peer = session.scalar(select(Peer).where(Peer.run_id == run.id))
    if peer is None:
        # Two nodes that ask in the same instant would else be given the same address.
        session.scalar(
            select(Collaboration.id).where(Collaboration.id == run.collaboration_id).with_for_update(key_share=True)
        )
        address = _free_address(session, run.collaboration_id, subnet)
        peer = Peer(run_id=run.id, job_id=run.task.job_id, collaboration_id=run.collaboration_id, address=address)
        session.add(peer)
        session.flush()
    return IPv4Address(peer.address)


def introduce(session: Session, actor: Actor, run_id: int, attempt: int, *, statement: Any, now: datetime) -> Others:
    """Takes what the run's organization says of it, in place of what it said before; the others of its job.

    Raises StaleAttempt, InvalidRequest, NotKnown or PermissionDenied.
    """
    run = held_run(session, actor, run_id, attempt)
    peer = session.scalar(select(Peer).where(Peer.run_id == run.id))
    if peer is None:
        raise InvalidRequest("The run has no address yet: reserve one first.")
    # Of two runs that are introduced in the same instant the second is told of the first.
    locks.hold(session, f"peers of job {peer.job_id}")
    said = _parse(statement)
    shown = (said.run, said.attempt, said.organization, said.collaboration, str(said.address))
    if shown != (run.id, attempt, run.organization_id, run.collaboration_id, peer.address):
        raise InvalidRequest('"statement" is of another run, attempt, organization, collaboration or address.')
    peer.statement = statement
    session.execute(delete(Port).where(Port.run_id == run.id))
    session.add_all(
        Port(run_id=run.id, port=number, label=label, ip=peer.address) for number, label in said.ports.items()
    )
    session.flush()
    tell_job(session, peer.job_id, now)
    return others_of(session, run)


def _parse(statement: Any) -> peering.Peer:
    try:
        return peering.Peer.parse(statement)
    except CryptoError as error:
        raise InvalidRequest(f'"statement": {error}') from error


def _free_address(session: Session, collaboration_id: int, subnet: IPv4Network) -> str:
    """The next after that of the youngest live run, so that one that became free rests for a while."""
    live = select(Peer.address).where(Peer.collaboration_id == collaboration_id).order_by(Peer.id)
    given = [int(IPv4Address(address)) for address in session.scalars(live)]
    first, size = int(subnet.network_address) + 1, subnet.num_addresses - 2
    start = given[-1] + 1 - first if given else 0
    taken = set(given)
    for step in range(size):
        address = first + (start + step) % size
        if address not in taken:
            return str(IPv4Address(address))
    raise InvalidRequest("All addresses of the VPN are taken by runs: the server's vpn.subnet is too small.")
