"""Users, roles and rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, false, or_, select, true
from sqlalchemy.orm import Session

from skerry_server import passwords
from skerry_server.errors import InvalidRequest, NotKnown, PermissionDenied
from skerry_server.events import announce, user_topic
from skerry_server.models import Organization, Payload, Role, Rule, Task, User, user_role
from skerry_server.policy import DEFAULT_ROLES, EVERYTHING, ROOT, Actor, Grant, Operation, Resource, Scope
from skerry_server.services.actors import grants_of
from skerry_server.services.organizations import found_organization
from skerry_server.services.tasks import end_open_tasks, remove_tasks


@dataclass(frozen=True, slots=True)
class Powers:
    """The roles and rules that a user shall have; None leaves what there is."""

    role_ids: Sequence[int] | None = None
    rule_ids: Sequence[int] | None = None


def create_user(
    session: Session, actor: Actor, fields: dict[str, Any], organization_id: int | None, powers: Powers
) -> User:
    """``fields`` has the password in the clear. Raises NotKnown, PermissionDenied or InvalidRequest."""
    organization_id = organization_id or actor.organization_id
    if session.get(Organization, organization_id) is None:
        raise NotKnown("organization", organization_id)
    if not actor.may(Resource.USER, Operation.CREATE, organizations=[organization_id]):
        raise PermissionDenied
    passwords.check_strength(fields["password"])
    _refuse_taken(session, User.username, fields["username"])
    _refuse_taken(session, User.email, fields["email"])
    user = User(**{**fields, "password": passwords.hash_password(fields["password"])}, organization_id=organization_id)
    _empower(session, actor, user, powers)
    session.add(user)
    session.flush()
    return user


def change_user(  # noqa: PLR0917 - what a change says
    session: Session, actor: Actor, id_: int, fields: dict[str, Any], powers: Powers, now: datetime
) -> User:
    """Who is disabled is out at once: their sessions are dead, and what runs in their name ends.

    Raises NotKnown, PermissionDenied or InvalidRequest.
    """
    user = _user(session, actor, id_, Operation.EDIT)
    if (powers.role_ids is not None or powers.rule_ids is not None) and user.id == actor.id:
        raise PermissionDenied("You can't change your own roles and rules!")
    if "username" in fields and user.id != actor.id:
        raise PermissionDenied("You can't change the username of another user!")
    for column in (User.username, User.email):
        if fields.get(column.key, getattr(user, column.key)) != getattr(user, column.key):
            _refuse_taken(session, column, fields[column.key])
    _empower(session, actor, user, powers)
    if fields.get("disabled") and not user.disabled:
        _shut_out(session, actor, user, now)
    for name, value in fields.items():
        setattr(user, name, value)
    return user


def _shut_out(session: Session, actor: Actor, user: User, now: datetime) -> None:
    if user.id == actor.id:
        raise InvalidRequest("You can't disable yourself.")
    user.epoch += 1
    announce(session, [user_topic(user.id)], now)
    end_open_tasks(session, Task.init_user_id == user.id, "its user was disabled", now)


def delete_user(session: Session, actor: Actor, id_: int, *, dependents: bool, now: datetime) -> Sequence[Payload]:
    """Open tasks of the user end; all stay unless ``dependents``. Gives the payloads whose files the caller removes.

    Raises NotKnown or PermissionDenied.
    """
    user = _user(session, actor, id_, Operation.DELETE)
    tasks = list(session.scalars(select(Task).where(Task.init_user_id == id_))) if dependents else []
    announce(session, [user_topic(id_)], now)
    end_open_tasks(session, Task.init_user_id == id_, "its user was deleted", now)
    payloads = remove_tasks(session, tasks, now)
    session.delete(user)
    return payloads


def find_user(session: Session, actor: Actor, id_: int) -> User:
    """Everybody sees themselves. Raises NotKnown or PermissionDenied."""
    return _user(session, actor, id_, Operation.VIEW)


def visible_users(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.USER, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [User.id == actor.id]
    if Scope.COLLABORATION in scopes:
        reached.append(User.organization_id.in_(actor.partners))
    if Scope.ORGANIZATION in scopes:
        reached.append(User.organization_id == actor.organization_id)
    return or_(*reached)


def create_role(
    session: Session,
    actor: Actor,
    name: str,
    description: str | None,
    *,
    rule_ids: Sequence[int],
    organization_id: int | None,
) -> Role:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    organization_id = organization_id or actor.organization_id
    if session.get(Organization, organization_id) is None:
        raise NotKnown("organization", organization_id)
    if not actor.may(Resource.ROLE, Operation.CREATE, organizations=[organization_id]):
        raise PermissionDenied
    _refuse_role_name(session, name, organization_id)
    rules = _rules(session, rule_ids)
    _check_hand_out(actor, rules)
    role = Role(name=name, description=description, organization_id=organization_id, rules=rules)
    session.add(role)
    session.flush()
    return role


def change_role(
    session: Session, actor: Actor, id_: int, fields: dict[str, Any], rule_ids: Sequence[int] | None
) -> Role:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    role = _own_role(session, actor, id_, Operation.EDIT)
    if fields.get("name", role.name) != role.name:
        _refuse_role_name(session, fields["name"], role.organization_id)
    if rule_ids is not None:
        rules = _rules(session, rule_ids)
        _check_hand_out(actor, rules)
        role.rules = rules
    for name, value in fields.items():
        setattr(role, name, value)
    return role


def delete_role(session: Session, actor: Actor, id_: int, *, dependents: bool) -> None:
    """Raises NotKnown, PermissionDenied, or InvalidRequest when users have it and ``dependents`` is not set."""
    role = _own_role(session, actor, id_, Operation.DELETE)
    held = select(exists().where(user_role.c.role_id == id_))
    if session.scalar(held) and not dependents:
        raise InvalidRequest(f'Role {id_} is held by users. Set "delete_dependents" to take it from them.')
    session.delete(role)


def add_rule(session: Session, actor: Actor, id_: int, rule_id: int) -> Role:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    role, rule = _own_role(session, actor, id_, Operation.EDIT), _rule(session, rule_id)
    _check_hand_out(actor, [rule])
    if rule not in role.rules:
        role.rules.append(rule)
    return role


def remove_rule(session: Session, actor: Actor, id_: int, rule_id: int) -> Role:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    role, rule = _own_role(session, actor, id_, Operation.EDIT), _rule(session, rule_id)
    role.rules = [one for one in role.rules if one is not rule]
    return role


def find_role(session: Session, actor: Actor, id_: int) -> Role:
    """Raises NotKnown or PermissionDenied."""
    role = session.get(Role, id_)
    if role is None:
        raise NotKnown("role", id_)
    default = role.organization_id is None and actor.scopes(Resource.ROLE, Operation.VIEW)
    mine = [role.organization_id] if role.organization_id is not None else []
    if not default and not actor.may(Resource.ROLE, Operation.VIEW, organizations=mine):
        raise PermissionDenied
    return role


def visible_roles(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.ROLE, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    if not scopes:
        return false()
    near = actor.partners if Scope.COLLABORATION in scopes else [actor.organization_id]
    return or_(Role.organization_id.is_(None), Role.organization_id.in_(near))


def found_root(session: Session, username: str, password: str, organization: str) -> User:
    """The first organization and its first user. Raises InvalidRequest for a weak password, or when there are users."""
    # The lock makes two who try at once take turns.
    root = session.scalar(select(Role).where(Role.name == ROOT, Role.is_default).with_for_update())
    if has_users(session):
        raise InvalidRequest("There are users already: the first one can only be made once.")
    passwords.check_strength(password)
    user = User(
        username=username,
        email=f"{username}@localhost",
        password=passwords.hash_password(password),
        organization=found_organization(session, {"name": organization}),
        roles=[root],
    )
    session.add(user)
    session.flush()
    return user


def has_users(session: Session) -> bool:
    return session.scalar(select(User.id).limit(1)) is not None


def write_policy(session: Session) -> None:
    """Makes the tables of rules and default roles say what the policy says; does nothing when they do."""
    rules = {_grant(rule): rule for rule in session.scalars(select(Rule))}
    order = list(Resource), list(Operation), list(Scope)
    new = sorted(
        EVERYTHING - set(rules),
        key=lambda g: (order[0].index(g.resource), order[1].index(g.operation), order[2].index(g.scope)),
    )
    for grant in new:
        rules[grant] = Rule(
            name=grant.resource, operation=grant.operation, scope=grant.scope, description=_describe(grant)
        )
        session.add(rules[grant])
        session.flush()
    roles = {role.name: role for role in session.scalars(select(Role).where(Role.is_default))}
    for name, default in DEFAULT_ROLES.items():
        role = roles.get(name) or Role(name=name, is_default=True)
        session.add(role)
        role.description = default.description
        wanted = sorted((rules[grant] for grant in default.grants), key=lambda rule: rule.id)
        if role.rules != wanted:
            role.rules = wanted
        session.flush()


def permissions_of(actor: Actor, user: User) -> dict[str, Any]:
    """What the vantage6 web page asks for: the ids of roles and rules, and the organizations in reach."""
    rules = {rule.id for rule in user.rules} | {rule.id for role in user.roles for rule in role.rules}
    partners = actor.partners if user.id == actor.id else ()
    return {
        "roles": [role.id for role in user.roles],
        "rules": sorted(rules),
        "orgs_in_collabs": sorted(partners),
    }


def _user(session: Session, actor: Actor, id_: int, operation: Operation) -> User:
    user = session.get(User, id_)
    if user is None:
        raise NotKnown("user", id_)
    oneself = operation is Operation.VIEW and id_ == actor.id
    if not oneself and not actor.may(Resource.USER, operation, owner=id_, organizations=[user.organization_id]):
        raise PermissionDenied
    if operation is not Operation.VIEW and id_ != actor.id and not actor.may_hand_out(grants_of(session, id_)):
        raise PermissionDenied("This user may do more than you, so you can't change them.")
    return user


def _own_role(session: Session, actor: Actor, id_: int, operation: Operation) -> Role:
    """A role that may be changed. Whoever changes it must have all that it gives: its holders would lose it."""
    role = session.get(Role, id_)
    if role is None:
        raise NotKnown("role", id_)
    mine = [role.organization_id] if role.organization_id is not None else []
    if not actor.may(Resource.ROLE, operation, organizations=mine):
        raise PermissionDenied
    if role.is_default:
        raise InvalidRequest(f'"{role.name}" is a default role, which can\'t be changed or deleted.')
    _check_hand_out(actor, role.rules)
    return role


def _rule(session: Session, id_: int) -> Rule:
    rule = session.get(Rule, id_)
    if rule is None:
        raise NotKnown("rule", id_)
    return rule


def _refuse_role_name(session: Session, name: str, organization_id: int | None) -> None:
    if name in DEFAULT_ROLES:
        raise InvalidRequest(f'"{name}" is the name of a default role.')
    taken = select(Role.id).where(Role.name == name, Role.organization_id == organization_id)
    if session.scalar(taken) is not None:
        raise InvalidRequest(f'A role with the name "{name}" already exists!')


def _empower(session: Session, actor: Actor, user: User, powers: Powers) -> None:
    if powers.role_ids is not None:
        roles = _existing(session, Role, powers.role_ids)
        foreign = [str(r.id) for r in roles if r.organization_id not in {None, user.organization_id}]
        if foreign:
            raise InvalidRequest(f"Role(s) {', '.join(foreign)} belong to another organization than the user.")
        _check_hand_out(actor, [rule for role in roles for rule in role.rules])
        user.roles = roles
    if powers.rule_ids is not None:
        rules = _rules(session, powers.rule_ids)
        _check_hand_out(actor, rules)
        user.rules = rules


def _check_hand_out(actor: Actor, rules: Iterable[Rule]) -> None:
    if not actor.may_hand_out([_grant(rule) for rule in rules]):
        raise PermissionDenied("You can't hand out rules that you do not have yourself!")


def _rules(session: Session, ids: Sequence[int]) -> list[Rule]:
    return _existing(session, Rule, ids)


def _existing(session: Session, model: type[Any], ids: Sequence[int]) -> list[Any]:
    rows = list(session.scalars(select(model).where(model.id.in_(ids)).order_by(model.id)))
    missing = sorted(set(ids) - {row.id for row in rows})
    if missing:
        raise InvalidRequest(f"There is no {model.__tablename__} with id {', '.join(map(str, missing))}.")
    return rows


def _refuse_taken(session: Session, column: Any, value: str) -> None:
    if session.scalar(select(User.id).where(column == value)) is not None:
        raise InvalidRequest(f"A user with this {column.key} already exists: choose another.")


def _grant(rule: Rule) -> Grant:
    return Grant(Resource(rule.name), Operation(rule.operation), Scope(rule.scope))


def _describe(grant: Grant) -> str:
    reach = {
        Scope.OWN: "one's own",
        Scope.ORGANIZATION: "those of one's organization",
        Scope.COLLABORATION: "those of one's collaborations",
        Scope.GLOBAL: "all",
    }
    return f"{grant.operation.capitalize()} {grant.resource}: {reach[grant.scope]}"
