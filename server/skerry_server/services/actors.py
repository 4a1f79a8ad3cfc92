"""From the claims of a token to a caller with its rules, looked up anew for each request."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import select, union
from sqlalchemy.orm import Session, aliased

from skerry_server.errors import LoginFailed
from skerry_server.models import Node, Rule, Run, Task, User, member, role_rule, user_role, user_rule
from skerry_server.policy import NODE_GRANTS, RUN_GRANTS, Actor, CallingRun, Grant, Kind, Operation, Resource, Scope
from skerry_server.trail import act_as

_GONE = "This token is no longer valid: log in again."


def load_actor(session: Session, kind: Kind, claims: dict[str, Any]) -> Actor:
    """Whoever it is acts in this transaction from now on.

    Raises LoginFailed when whoever the token was made for is gone, or got another password, key or attempt.
    """
    load = {Kind.USER: _user, Kind.NODE: _node, Kind.RUN: _run}[kind]
    actor = load(session, claims)
    act_as(session, actor.who)
    return actor


def grants_of(session: Session, user_id: int) -> frozenset[Grant]:
    """All rules of a user, those of the roles included."""
    by_role = (
        select(role_rule.c.rule_id)
        .join(user_role, user_role.c.role_id == role_rule.c.role_id)
        .where(user_role.c.user_id == user_id)
    )
    direct = select(user_rule.c.rule_id).where(user_rule.c.user_id == user_id)
    ids = union(by_role, direct).subquery()
    rows = session.execute(select(Rule.name, Rule.operation, Rule.scope).join(ids, Rule.id == ids.c.rule_id))
    return frozenset(Grant(Resource(name), Operation(operation), Scope(scope)) for name, operation, scope in rows)


def _user(session: Session, claims: dict[str, Any]) -> Actor:
    row = session.execute(select(User.organization_id, User.epoch).where(User.id == claims["sub"])).one_or_none()
    if row is None or row.epoch != claims.get("epoch"):
        raise LoginFailed(_GONE)
    collaborations = _collaborations(session, row.organization_id)
    return Actor(Kind.USER, claims["sub"], row.organization_id, collaborations, grants_of(session, claims["sub"]))


def _node(session: Session, claims: dict[str, Any]) -> Actor:
    columns = select(Node.organization_id, Node.collaboration_id, Node.epoch).where(Node.id == claims["sub"])
    row = session.execute(columns).one_or_none()
    if row is None or row.epoch != claims.get("epoch"):
        raise LoginFailed(_GONE)
    members = _members_with(session, row.collaboration_id, row.organization_id)
    return Actor(Kind.NODE, claims["sub"], row.organization_id, {row.collaboration_id: members}, NODE_GRANTS)


def _run(session: Session, claims: dict[str, Any]) -> Actor:
    columns = (
        select(Run.attempt, Run.state, Run.task_id, Run.organization_id, Run.collaboration_id, Run.node_id)
        .add_columns(Task.job_id, Task.image)
        .join(Task, Run.task_id == Task.id)
        .where(Run.id == claims["sub"])
    )
    row = session.execute(columns).one_or_none()
    if row is None or row.attempt != claims.get("attempt"):
        raise LoginFailed("This run's attempt is not the current one.")
    run = CallingRun(
        row.attempt, row.task_id, row.job_id, row.collaboration_id, row.node_id, row.image, row.state.terminal
    )
    members = _members_with(session, row.collaboration_id, row.organization_id)
    return Actor(Kind.RUN, claims["sub"], row.organization_id, {row.collaboration_id: members}, RUN_GRANTS, run)


def _collaborations(session: Session, organization_id: int) -> dict[int, frozenset[int]]:
    mine = aliased(member)
    rows = session.execute(
        select(member.c.collaboration_id, member.c.organization_id)
        .join(mine, mine.c.collaboration_id == member.c.collaboration_id)
        .where(mine.c.organization_id == organization_id)
    )
    found: defaultdict[int, set[int]] = defaultdict(set)
    for collaboration, organization in rows:
        found[collaboration].add(organization)
    return {collaboration: frozenset(members) for collaboration, members in found.items()}


def _members_with(session: Session, collaboration_id: int, organization_id: int) -> frozenset[int]:
    """The collaboration's members; raises LoginFailed when that organization is one no more."""
    rows = session.scalars(select(member.c.organization_id).where(member.c.collaboration_id == collaboration_id))
    members = frozenset(rows)
    if organization_id not in members:
        raise LoginFailed("Your organization is no longer a member of this collaboration.")
    return members
