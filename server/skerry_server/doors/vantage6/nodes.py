"""Nodes (contract, section 2.7)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint
from pydantic import Field
from sqlalchemy import and_, not_, select
from sqlalchemy.orm import selectinload

from skerry_server.doors.fields import Body, Id, Member, Name, Short
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers
from skerry_server.doors.vantage6.paging import Listing, each, like, named, paged
from skerry_server.doors.vantage6.shapes import moment, one
from skerry_server.models import ONLINE_FOR, Node, study_member
from skerry_server.policy import Kind
from skerry_server.services import collaborations, nodes, sharing

SORTS = named(Node.id, Node.name, Node.last_seen, Node.ip, Node.organization_id, Node.collaboration_id)


class NodeQuery(Listing):
    organization_id: Id | None = None
    collaboration_id: Id | None = None
    study_id: Id | None = None
    status: Literal["online", "offline"] | None = None
    ip: str | None = None
    name: str | None = None
    last_seen_from: datetime | None = None
    last_seen_till: datetime | None = None


class NewNode(Body):
    collaboration_id: Id
    organization_id: Id | None = None
    name: Name | None = None


class NodeChange(Body):
    name: Name | None = None
    ip: Annotated[Short, Field(max_length=64)] | None = None
    clear_ip: bool = False


@calls(Kind.USER, Kind.NODE, query=NodeQuery, answer=answers.Page[answers.Node])
def list_nodes(call: Call, query: NodeQuery) -> Reply:
    statement = select(Node).where(nodes.visible_nodes(call.actor))
    for column in (Node.organization_id, Node.collaboration_id, Node.ip):
        value = getattr(query, column.key)
        if value is not None:
            statement = statement.where(column == value)
    if query.name is not None:
        statement = statement.where(like(Node.name, query.name))
    if query.status is not None:
        online = and_(Node.online, Node.last_seen > call.now - ONLINE_FOR)
        statement = statement.where(
            online if query.status == "online" else not_(Node.id.in_(select(Node.id).where(online)))
        )
    if query.study_id is not None:
        study = collaborations.find_study(call.session, call.actor, query.study_id)
        members = select(study_member.c.organization_id).where(study_member.c.study_id == study.id)
        here = Node.collaboration_id == study.collaboration_id
        statement = statement.where(here, Node.organization_id.in_(members))
    if query.last_seen_from is not None:
        statement = statement.where(Node.last_seen >= query.last_seen_from)
    if query.last_seen_till is not None:
        statement = statement.where(Node.last_seen <= query.last_seen_till)
    statement = statement.options(selectinload(Node.settings))
    return paged(call, statement, query, each(show), sorts=SORTS, default=Node.id.asc())


@calls(Kind.USER, body=NewNode, answer=answers.NodeWithKey)
def create(call: Call, body: NewNode) -> Reply:
    node, key = nodes.create_node(call.session, call.actor, body.collaboration_id, body.organization_id, body.name)
    return Reply({**show(call, node), "api_key": key}, 201)


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.Node)
def get(call: Call, id_: int) -> dict[str, Any]:
    return show(call, nodes.find_node(call.session, call.actor, id_))


@calls(Kind.USER, Kind.NODE, body=NodeChange, answer=answers.Node)
def change(call: Call, id_: int, body: NodeChange) -> dict[str, Any]:
    return show(call, nodes.change_node(call.session, call.actor, id_, body.name, body.ip, clear_ip=body.clear_ip))


@calls(Kind.USER, answer=answers.Message)
def delete(call: Call, id_: int) -> dict[str, Any]:
    nodes.delete_node(call.session, call.actor, id_, call.now)
    return {"msg": f"Node id={id_} successfully deleted"}


@calls(Kind.USER, body=Member, answer=answers.ApiKey)
def renew_key(call: Call, body: Member) -> dict[str, Any]:
    return {"api_key": nodes.renew_api_key(call.session, call.actor, body.id, call.now)}


@calls(Kind.USER, body=Member, answer=answers.Message)
def kill_tasks(call: Call, body: Member) -> dict[str, Any]:
    node = nodes.kill_tasks(call.session, call.actor, body.id, call.now)
    return {"msg": f"All tasks of node {node.id} have been killed."}


def register(door: Blueprint) -> None:
    door.get("/node", endpoint="nodes")(list_nodes)
    door.post("/node", endpoint="node_create")(create)
    door.get("/node/<id:id_>", endpoint="node")(get)
    door.patch("/node/<id:id_>", endpoint="node_change")(change)
    door.delete("/node/<id:id_>", endpoint="node_delete")(delete)
    door.post("/kill/node/tasks", endpoint="node_kill_tasks")(kill_tasks)
    door.post("/recover/node", endpoint="node_renew_key")(renew_key)


def show(call: Call, node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "type": "node",
        "name": node.name,
        "ip": node.ip,
        "last_seen": moment(node.last_seen),
        "status": "online" if node.is_online(call.now) else "offline",
        "refuses": node.why_not(call.now),
        "organization": one(call, "organization", node.organization_id),
        "collaboration": one(call, "collaboration", node.collaboration_id),
        "config": [{"key": one.key, "value": one.value} for one in sharing.shown(node, call.now)],
    }
