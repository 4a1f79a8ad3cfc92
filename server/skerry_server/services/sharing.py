"""What nodes tell of their own configuration (native protocol, section 4). The server only hands it on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from skerry_server.errors import InvalidRequest, NotKnown
from skerry_server.models import Node, NodeSetting, Organization, User
from skerry_server.policy import Actor, Kind

_USERS, _ORGANIZATIONS = "allowed_users", "allowed_orgs"


def share(session: Session, actor: Actor, rows: Sequence[tuple[str, str]]) -> None:
    """These rows take the place of all that the node said before."""
    node = session.get(Node, actor.id)
    if node is None:
        raise NotKnown("node", actor.id)
    node.settings = [NodeSetting(key=key, value=value) for key, value in rows]


def shown(node: Node, now: datetime) -> Sequence[NodeSetting]:
    """What a node shares, as long as it is online: afterwards it may be out of date."""
    return node.settings if node.is_online(now) else ()


def check_asker(session: Session, actor: Actor, nodes: Iterable[Node], now: datetime) -> None:
    """Refuses a user whom one of the nodes says that it does not admit. Raises InvalidRequest.

    Saves the user the wait for the node's own refusal; a node's policy does not lean on it.
    """
    if actor.kind is not Kind.USER:
        return
    told = _admitted(session, nodes, now)
    if not told:
        return
    user, organization = session.get_one(User, actor.id), session.get_one(Organization, actor.organization_id)
    names = {
        _USERS: {str(user.id), user.username},
        _ORGANIZATIONS: {str(organization.id), organization.name},
    }
    for (organization_id, key), admitted in told.items():
        if not admitted & names[key]:
            who = "you" if key == _USERS else "your organization"
            raise InvalidRequest(f"The node of organization {organization_id} does not admit tasks of {who}.")


def _admitted(session: Session, nodes: Iterable[Node], now: datetime) -> Mapping[tuple[int, str], set[str]]:
    """Whom those of the nodes admit that are online and say so: by organization and key."""
    found: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    online = {node.id: node.organization_id for node in nodes if node.is_online(now)}
    if online:
        here = (NodeSetting.node_id.in_(online), NodeSetting.key.in_([_USERS, _ORGANIZATIONS]))
        columns = select(NodeSetting.node_id, NodeSetting.key, NodeSetting.value).where(*here)
        for node_id, key, value in session.execute(columns.order_by(NodeSetting.id)):
            found[online[node_id], key].add(value)
    return found


def columns(
    session: Session, collaboration_id: int, organization_ids: Iterable[int], label: str, now: datetime
) -> list[str]:
    """The columns of a database as the nodes of these organizations tell them, each once; none when one is silent."""
    wanted = set(organization_ids)
    here = (Node.collaboration_id == collaboration_id, Node.organization_id.in_(wanted))
    nodes = session.scalars(select(Node).where(*here).order_by(Node.id).options(selectinload(Node.settings))).all()
    told = [[row.value for row in shown(node, now) if row.key == f"columns_{label}"] for node in nodes]
    if len(told) < len(wanted) or not all(told):
        return []
    return list(dict.fromkeys(column for one in told for column in one))
