"""Nodes: one for each organization in each collaboration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, false, or_, select, true
from sqlalchemy.orm import Session

from skerry_server.errors import InvalidRequest, NotKnown, PermissionDenied
from skerry_server.events import announce, node_topic
from skerry_server.lifecycle import OPEN, State
from skerry_server.models import Collaboration, Node, Organization, Run, member
from skerry_server.policy import Actor, Kind, Operation, Resource, Scope
from skerry_server.services.login import digest_api_key, new_api_key
from skerry_server.services.runs import end_held
from skerry_server.services.tasks import end_runs_and_children


def create_node(
    session: Session, actor: Actor, collaboration_id: int, organization_id: int | None, name: str | None
) -> tuple[Node, str]:
    """The node and its API key, which is shown this once. Raises NotKnown, PermissionDenied or InvalidRequest."""
    organization_id = organization_id or actor.organization_id
    collaboration = session.get(Collaboration, collaboration_id)
    if collaboration is None:
        raise NotKnown("collaboration", collaboration_id)
    organization = session.get(Organization, organization_id)
    if organization is None:
        raise NotKnown("organization", organization_id)
    if not actor.may(
        Resource.NODE, Operation.CREATE, organizations=[organization_id], collaborations=[collaboration_id]
    ):
        raise PermissionDenied
    _check_place(session, collaboration, organization)
    name = name or f"{organization.name} - {collaboration.name} Node"
    _refuse_taken(session, name)
    key = new_api_key()
    node = Node(
        name=name, organization=organization, collaboration=collaboration, api_key=digest_api_key(key), online=False
    )
    session.add(node)
    session.flush()
    return node, key


def change_node(session: Session, actor: Actor, id_: int, name: str | None, ip: str | None, *, clear_ip: bool) -> Node:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    node = _get(session, actor, id_, Operation.EDIT)
    if name is not None and name != node.name:
        _refuse_taken(session, name)
        node.name = name
    if ip is not None or clear_ip:
        node.ip = None if clear_ip else ip
    return node


def delete_node(session: Session, actor: Actor, id_: int, now: datetime) -> None:
    """Ends the runs that it holds; those that wait stay, for another node. Raises NotKnown or PermissionDenied."""
    node = _get(session, actor, id_, Operation.DELETE)
    end_held(session, Run.node_id == id_, State.KILLED, "its node was deleted", now)
    session.delete(node)
    announce(session, [node_topic(id_)], now)


def move_node(session: Session, actor: Actor, id_: int, collaboration_id: int) -> Node:
    """Puts a node that has nothing to do into another collaboration; its tokens are dead.

    Whoever moves it must be allowed to delete it here and to create it there. Raises NotKnown, PermissionDenied or
    InvalidRequest.
    """
    node = session.get(Node, id_)
    if node is None:
        raise NotKnown("node", id_)
    collaboration = session.get(Collaboration, collaboration_id)
    if collaboration is None:
        raise NotKnown("collaboration", collaboration_id)
    for operation, where in ((Operation.DELETE, node.collaboration_id), (Operation.CREATE, collaboration_id)):
        if not actor.may(Resource.NODE, operation, organizations=[node.organization_id], collaborations=[where]):
            raise PermissionDenied
    if node.collaboration_id != collaboration_id:
        _check_place(session, collaboration, node.organization)
        _refuse_busy(session, node)
        node.collaboration, node.epoch = collaboration, node.epoch + 1
        session.flush()
    return node


def remove_node(session: Session, actor: Actor, id_: int, collaboration_id: int, now: datetime) -> None:
    """A node belongs to one collaboration, so removed from it it is gone. Raises as :func:`delete_node` does."""
    node = _get(session, actor, id_, Operation.DELETE)
    if node.collaboration_id != collaboration_id:
        raise InvalidRequest(f"Node {id_} is not in collaboration {collaboration_id}.")
    delete_node(session, actor, id_, now)
    session.flush()


def nodes_of(session: Session, collaboration_id: int) -> Sequence[Node]:
    return session.scalars(select(Node).where(Node.collaboration_id == collaboration_id).order_by(Node.id)).all()


def kill_tasks(session: Session, actor: Actor, id_: int, now: datetime) -> Node:
    """Ends all that the node has to do. Raises NotKnown, PermissionDenied, or InvalidRequest when it is offline."""
    node = session.get(Node, id_)
    if node is None:
        raise NotKnown("node", id_)
    belongs: dict[str, Any] = {"organizations": [node.organization_id], "collaborations": [node.collaboration_id]}
    if not actor.may(Resource.EVENT, Operation.SEND, **belongs):
        raise PermissionDenied
    if not node.is_online(now):
        raise InvalidRequest(f"Node {id_} is offline, so nothing of it can be killed now.")
    end_runs_and_children(session, Run.node_id == id_, "killed by user", now)
    return node


def renew_api_key(session: Session, actor: Actor, id_: int, now: datetime) -> str:
    """A new key; the old one and its tokens are dead at once. Raises NotKnown or PermissionDenied."""
    return replace_api_key(session, _get(session, actor, id_, Operation.EDIT), now)


def replace_api_key(session: Session, node: Node, now: datetime) -> str:
    """A new key for a node; the old one, and one that waited to take its place, are dead at once."""
    announce(session, [node_topic(node.id)], now)
    key = new_api_key()
    node.api_key, node.next_api_key, node.epoch = digest_api_key(key), None, node.epoch + 1
    return key


def rotate_api_key(session: Session, actor: Actor) -> str:
    """A key that takes the place of the calling node's present one when the node first logs in with it."""
    key = new_api_key()
    session.get_one(Node, actor.id).next_api_key = digest_api_key(key)
    return key


def node_at(session: Session, collaboration_id: int, organization_id: int) -> Node | None:
    place = (Node.collaboration_id == collaboration_id, Node.organization_id == organization_id)
    return session.scalar(select(Node).where(*place))


def check_editable(session: Session, actor: Actor, id_: int) -> None:
    """Raises NotKnown or PermissionDenied."""
    _get(session, actor, id_, Operation.EDIT)


def find_node(session: Session, actor: Actor, id_: int) -> Node:
    """Raises NotKnown or PermissionDenied."""
    return _get(session, actor, id_, Operation.VIEW)


def visible_nodes(actor: Actor) -> ColumnElement[bool]:
    if actor.run is not None:
        return Node.id == actor.run.node_id
    scopes = actor.scopes(Resource.NODE, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.COLLABORATION in scopes:
        reached.append(Node.collaboration_id.in_(actor.collaborations))
    if Scope.ORGANIZATION in scopes:
        reached.append(Node.organization_id == actor.organization_id)
    return or_(*reached)


def _get(session: Session, actor: Actor, id_: int, operation: Operation) -> Node:
    node = session.get(Node, id_)
    if node is None:
        raise NotKnown("node", id_)
    if actor.run is not None:
        allowed = operation is Operation.VIEW and actor.run.node_id == id_
    elif actor.kind is Kind.NODE and operation is not Operation.VIEW:
        allowed = actor.id == id_
    else:
        organizations, collaborations = [node.organization_id], [node.collaboration_id]
        allowed = actor.may(Resource.NODE, operation, organizations=organizations, collaborations=collaborations)
    if not allowed:
        raise PermissionDenied
    return node


def _check_place(session: Session, collaboration: Collaboration, organization: Organization) -> None:
    here = (member.c.collaboration_id == collaboration.id, member.c.organization_id == organization.id)
    if session.scalar(select(member.c.organization_id).where(*here)) is None:
        raise InvalidRequest(f"Organization {organization.id} is not in collaboration {collaboration.id}.")
    if node_at(session, collaboration.id, organization.id) is not None:
        raise InvalidRequest(f"Organization {organization.id} already has a node for collaboration {collaboration.id}.")


def _refuse_busy(session: Session, node: Node) -> None:
    if session.scalar(select(Run.id).where(Run.node_id == node.id, Run.state.in_(OPEN)).limit(1)) is not None:
        raise InvalidRequest(f"Node {node.id} still has runs to do: kill them, or wait for their end.")


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalar(select(Node.id).where(Node.name == name)) is not None:
        raise InvalidRequest(f'A node with the name "{name}" already exists!')
