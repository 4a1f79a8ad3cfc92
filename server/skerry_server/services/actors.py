"""From the claims of a token to a caller with its rules, looked up anew for each request."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import String, bindparam, cast, func, select, union
from sqlalchemy.orm import Session

from skerry_server.errors import LoginFailed
from skerry_server.models import Node, Rule, Run, Task, User, member, role_rule, user_role, user_rule
from skerry_server.policy import NODE_GRANTS, RUN_GRANTS, Actor, CallingRun, Grant, Kind, grants
from skerry_server.trail import act_as

NO_MEMBER = "Your organization is no longer a member of this collaboration."
_GONE = "This token is no longer valid: log in again."

# What every request asks, built once: to build a statement takes longer than to run these.
_MEMBERS = select(member.c.collaboration_id, member.c.organization_id).where(
    member.c.collaboration_id.in_(bindparam("collaborations", expanding=True))
)
_MEMBER = select(member.c.organization_id).where(
    member.c.collaboration_id == bindparam("collaboration"), member.c.organization_id == bindparam("organization")
)
_rules = union(
    select(role_rule.c.rule_id)
    .join(user_role, user_role.c.role_id == role_rule.c.role_id)
    .where(user_role.c.user_id == bindparam("user")),
    select(user_rule.c.rule_id).where(user_rule.c.user_id == bindparam("user")),
)
# Lists in one text each: a row for each rule takes longer than all else that is read.
_GRANTS = select(func.aggregate_strings(Rule.name + " " + Rule.operation + " " + Rule.scope, ",")).where(
    Rule.id.in_(_rules)
)
_memberships = select(func.aggregate_strings(cast(member.c.collaboration_id, String), ",")).where(
    member.c.organization_id == User.organization_id
)
_USER = select(
    User.organization_id,
    User.epoch,
    _memberships.scalar_subquery().label("collaborations"),
    _GRANTS.scalar_subquery().label("grants"),
).where(User.id == bindparam("user"))
_NODE = select(Node.organization_id, Node.collaboration_id, Node.epoch).where(Node.id == bindparam("id"))
_RUN = (
    select(Run.attempt, Run.state, Run.task_id, Run.organization_id, Run.collaboration_id, Run.node_id)
    .add_columns(Task.job_id, Task.image)
    .join(Task, Run.task_id == Task.id)
    .where(Run.id == bindparam("id"))
)


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
    return _grants(session.scalar(_GRANTS, {"user": user_id}))


@functools.lru_cache(maxsize=1024)
def _grants(rules: str | None) -> frozenset[Grant]:
    """Of many users it is the same text."""
    return grants(*rules.split(",")) if rules else frozenset()


def _user(session: Session, claims: dict[str, Any]) -> Actor:
    row = session.connection().execute(_USER, {"user": claims["sub"]}).one_or_none()
    if row is None or row.epoch != claims.get("epoch"):
        raise LoginFailed(_GONE)
    mine = _Collaborations(session, map(int, row.collaborations.split(",") if row.collaborations else ()))
    return Actor(Kind.USER, claims["sub"], row.organization_id, mine, _grants(row.grants))


def _node(session: Session, claims: dict[str, Any]) -> Actor:
    row = session.connection().execute(_NODE, {"id": claims["sub"]}).one_or_none()
    if row is None or row.epoch != claims.get("epoch"):
        raise LoginFailed(_GONE)
    here = _where_member(session, row.collaboration_id, row.organization_id)
    return Actor(Kind.NODE, claims["sub"], row.organization_id, here, NODE_GRANTS)


def _run(session: Session, claims: dict[str, Any]) -> Actor:
    row = session.connection().execute(_RUN, {"id": claims["sub"]}).one_or_none()
    if row is None or row.attempt != claims.get("attempt"):
        raise LoginFailed("This run's attempt is not the current one.")
    run = CallingRun(
        row.attempt, row.task_id, row.job_id, row.collaboration_id, row.node_id, row.image, row.state.terminal
    )
    here = _where_member(session, row.collaboration_id, row.organization_id)
    return Actor(Kind.RUN, claims["sub"], row.organization_id, here, RUN_GRANTS, run)


class _Collaborations(Mapping[int, frozenset[int]]):
    """Collaborations, with their members for who asks: few calls do, and there may be a thousand."""

    def __init__(self, session: Session, ids: Iterable[int]) -> None:
        self._session = session
        self._ids = frozenset(ids)
        self._members: Mapping[int, frozenset[int]] | None = None

    def __getitem__(self, id_: int) -> frozenset[int]:
        if self._members is None:
            self._members = _members(self._session, self._ids)
        return self._members[id_]

    def __contains__(self, id_: object) -> bool:
        return id_ in self._ids

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _members(session: Session, ids: frozenset[int]) -> Mapping[int, frozenset[int]]:
    found: dict[int, set[int]] = {id_: set() for id_ in ids}
    for collaboration, organization in session.execute(_MEMBERS, {"collaborations": sorted(ids)}):
        found[collaboration].add(organization)
    return {collaboration: frozenset(members) for collaboration, members in found.items()}


def _where_member(session: Session, collaboration_id: int, organization_id: int) -> _Collaborations:
    """The one collaboration; raises LoginFailed when that organization is a member of it no more."""
    if not is_member(session, collaboration_id, organization_id):
        raise LoginFailed(NO_MEMBER)
    return _Collaborations(session, [collaboration_id])


def is_member(session: Session, collaboration_id: int, organization_id: int) -> bool:
    """Whether the organization is in the collaboration now."""
    asked = {"collaboration": collaboration_id, "organization": organization_id}
    return session.connection().scalar(_MEMBER, asked) is not None
