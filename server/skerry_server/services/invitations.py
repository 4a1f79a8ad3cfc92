"""Invitations: a secret that is good once, for a few days, for the API key of one node."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from skerry_server.errors import LoginFailed
from skerry_server.models import Invitation, Node
from skerry_server.policy import Actor
from skerry_server.services.nodes import check_editable, create_node, node_at, replace_api_key

LONGEST = timedelta(days=7)
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Invited:
    """``secret`` is shown this once."""

    node: Node
    secret: str
    expires: datetime


def invite(  # noqa: PLR0917 - what an invitation says
    session: Session, actor: Actor, collaboration_id: int, organization_id: int | None, life: timedelta, now: datetime
) -> Invited:
    """Makes the node where there is none yet; one that is there loses its key when the invitation is used.

    An earlier invitation of the node is void. Raises as creating a node, or renewing its key, does.
    """
    organization_id = organization_id or actor.organization_id
    node = node_at(session, collaboration_id, organization_id)
    if node is None:
        node, _ = create_node(session, actor, collaboration_id, organization_id, None)
    else:
        check_editable(session, actor, node.id)
    session.execute(delete(Invitation).where(Invitation.node_id == node.id))
    secret, expires = secrets.token_urlsafe(_SECRET_BYTES), now + min(life, LONGEST)
    session.add(Invitation(node_id=node.id, secret=_digest(secret), expires=expires))
    session.flush()
    return Invited(node, secret, expires)


def redeem(session: Session, secret: str, now: datetime) -> tuple[Node, str]:
    """The node and its new API key. Raises LoginFailed, alike for a secret that is unknown, used or too old."""
    taken = delete(Invitation).where(Invitation.secret == _digest(secret), Invitation.expires > now)
    node_id = session.scalar(taken.returning(Invitation.node_id))
    node = session.get(Node, node_id) if node_id is not None else None
    if node is None:
        raise LoginFailed("This invitation is not good, or no longer: ask for a new one.")
    return node, replace_api_key(session, node, now)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
