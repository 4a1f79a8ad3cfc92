"""Users, roles and rules (contract, section 2.8)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field
from sqlalchemy import or_, select

from skerry_server.doors.fields import Body, Dependents, Email, Flag, Id, Name, Query, Short, Text, Username
from skerry_server.doors.handling import Call, Reply, calls
from skerry_server.doors.vantage6 import answers
from skerry_server.doors.vantage6.paging import Listing, each, like, named, paged
from skerry_server.doors.vantage6.shapes import many, moment, one
from skerry_server.errors import InvalidRequest, NotKnown
from skerry_server.models import Role, Rule, User, member, role_rule, user_role, user_rule
from skerry_server.policy import Kind
from skerry_server.services import users

USER_SORTS = named(
    User.id, User.username, User.firstname, User.lastname, User.email, User.last_seen, User.organization_id
)
ROLE_SORTS = named(Role.id, Role.name, Role.description, Role.organization_id)
RULE_SORTS = named(Rule.id, Rule.name, Rule.operation, Rule.scope)
Ids = Annotated[list[Id], Field(max_length=1000)]


class UserQuery(Listing):
    username: str | None = None
    firstname: str | None = None
    lastname: str | None = None
    email: str | None = None
    organization_id: Id | None = None
    role_id: Id | None = None
    rule_id: Id | None = None
    collaboration_id: Id | None = None
    last_seen_from: datetime | None = None
    last_seen_till: datetime | None = None


class OneUserQuery(Query):
    include_permissions: Flag = False


class NewUser(Body):
    username: Username
    email: Email
    password: Annotated[Text, Field(max_length=128)]
    firstname: Short | None = None
    lastname: Short | None = None
    organization_id: Id | None = None
    roles: Ids = Field(default_factory=list)
    rules: Ids = Field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, exclude={"organization_id", "roles", "rules"})


class UserChange(Body):
    username: Username | None = None
    email: Email | None = None
    firstname: Short | None = None
    lastname: Short | None = None
    password: str | None = None
    organization_id: Id | None = None
    disabled: bool | None = None
    roles: Ids | None = None
    rules: Ids | None = None

    def fields(self) -> dict[str, Any]:
        """Raises InvalidRequest for what is changed elsewhere, or never."""
        if self.password is not None:
            raise InvalidRequest("A password is changed by /password/change, not here.")
        return self.model_dump(exclude_none=True, exclude={"organization_id", "roles", "rules"})


class RoleQuery(Listing):
    name: str | None = None
    description: str | None = None
    organization_id: Id | None = None
    rule_id: Id | None = None
    user_id: Id | None = None
    collaboration_id: Id | None = None
    include_root: Flag = False


class NewRole(Body):
    name: Name
    description: Annotated[Text, Field(max_length=1024)] | None = None
    rules: Ids
    organization_id: Id | None = None


class RoleChange(Body):
    name: Name | None = None
    description: Annotated[Text, Field(max_length=1024)] | None = None
    rules: Ids | None = None


class RuleQuery(Listing):
    name: str | None = None
    operation: str | None = None
    scope: str | None = None
    role_id: Id | None = None
    user_id: Id | None = None


@calls(Kind.USER, query=UserQuery, answer=answers.Page[answers.User])
def list_users(call: Call, query: UserQuery) -> Reply:
    statement = select(User).where(users.visible_users(call.actor))
    for column in (User.username, User.firstname, User.lastname, User.email):
        pattern = getattr(query, column.key)
        if pattern is not None:
            statement = statement.where(like(column, pattern))
    if query.organization_id is not None:
        statement = statement.where(User.organization_id == query.organization_id)
    if query.role_id is not None:
        statement = statement.where(
            User.id.in_(select(user_role.c.user_id).where(user_role.c.role_id == query.role_id))
        )
    if query.rule_id is not None:
        statement = statement.where(
            User.id.in_(select(user_rule.c.user_id).where(user_rule.c.rule_id == query.rule_id))
        )
    if query.collaboration_id is not None:
        members = select(member.c.organization_id).where(member.c.collaboration_id == query.collaboration_id)
        statement = statement.where(User.organization_id.in_(members))
    if query.last_seen_from is not None:
        statement = statement.where(User.last_seen >= query.last_seen_from)
    if query.last_seen_till is not None:
        statement = statement.where(User.last_seen <= query.last_seen_till)
    return paged(call, statement, query, each(show_user), sorts=USER_SORTS, default=User.id.asc())


@calls(Kind.USER, body=NewUser, answer=answers.User)
def create_user(call: Call, body: NewUser) -> Reply:
    powers = users.Powers(body.roles, body.rules)
    user = users.create_user(call.session, call.actor, body.fields(), body.organization_id, powers)
    return Reply(show_user(call, user), 201)


@calls(Kind.USER, query=OneUserQuery, answer=answers.User | answers.UserWithPermissions)
def get_user(call: Call, id_: int, query: OneUserQuery) -> dict[str, Any]:
    user = users.find_user(call.session, call.actor, id_)
    shown = show_user(call, user)
    return {**shown, "permissions": users.permissions_of(call.actor, user)} if query.include_permissions else shown


@calls(Kind.USER, body=UserChange, answer=answers.User)
def change_user(call: Call, id_: int, body: UserChange) -> dict[str, Any]:
    powers = users.Powers(body.roles, body.rules)
    return show_user(call, users.change_user(call.session, call.actor, id_, body.fields(), powers, call.now))


@calls(Kind.USER, query=Dependents, answer=answers.Message)
def delete_user(call: Call, id_: int, query: Dependents) -> dict[str, Any]:
    call.forget(users.delete_user(call.session, call.actor, id_, dependents=query.delete_dependents, now=call.now))
    return {"msg": f"User id={id_} successfully deleted"}


@calls(Kind.USER, query=RoleQuery, answer=answers.Page[answers.Role])
def list_roles(call: Call, query: RoleQuery) -> Reply:
    statement = select(Role).where(users.visible_roles(call.actor))
    for column in (Role.name, Role.description):
        pattern = getattr(query, column.key)
        if pattern is not None:
            statement = statement.where(like(column, pattern))
    if query.organization_id is not None:
        own = Role.organization_id == query.organization_id
        statement = statement.where(or_(own, Role.organization_id.is_(None)) if query.include_root else own)
    if query.rule_id is not None:
        statement = statement.where(
            Role.id.in_(select(role_rule.c.role_id).where(role_rule.c.rule_id == query.rule_id))
        )
    if query.user_id is not None:
        statement = statement.where(
            Role.id.in_(select(user_role.c.role_id).where(user_role.c.user_id == query.user_id))
        )
    if query.collaboration_id is not None:
        members = select(member.c.organization_id).where(member.c.collaboration_id == query.collaboration_id)
        statement = statement.where(Role.organization_id.in_(members))
    return paged(call, statement, query, each(show_role), sorts=ROLE_SORTS, default=Role.id.asc())


@calls(Kind.USER, body=NewRole, answer=answers.Role)
def create_role(call: Call, body: NewRole) -> Reply:
    role = users.create_role(
        call.session, call.actor, body.name, body.description, rule_ids=body.rules, organization_id=body.organization_id
    )
    return Reply(show_role(call, role), 201)


@calls(Kind.USER, answer=answers.Role)
def get_role(call: Call, id_: int) -> dict[str, Any]:
    return show_role(call, users.find_role(call.session, call.actor, id_))


@calls(Kind.USER, body=RoleChange, answer=answers.Role)
def change_role(call: Call, id_: int, body: RoleChange) -> dict[str, Any]:
    fields = body.model_dump(exclude_none=True, exclude={"rules"})
    return show_role(call, users.change_role(call.session, call.actor, id_, fields, body.rules))


@calls(Kind.USER, query=Dependents, answer=answers.Message)
def delete_role(call: Call, id_: int, query: Dependents) -> dict[str, Any]:
    users.delete_role(call.session, call.actor, id_, dependents=query.delete_dependents)
    return {"msg": f"Role id={id_} successfully deleted"}


@calls(Kind.USER, answer=list[answers.Rule])
def add_rule(call: Call, id_: int, rule_id: int) -> Reply:
    role = users.add_rule(call.session, call.actor, id_, rule_id)
    return Reply([show_rule(call, rule) for rule in role.rules], 201)


@calls(Kind.USER, answer=list[answers.Rule])
def remove_rule(call: Call, id_: int, rule_id: int) -> list[dict[str, Any]]:
    role = users.remove_rule(call.session, call.actor, id_, rule_id)
    return [show_rule(call, rule) for rule in role.rules]


@calls(Kind.USER, query=RuleQuery, answer=answers.Page[answers.Rule])
def list_rules(call: Call, query: RuleQuery) -> Reply:
    statement = select(Rule)
    for column in (Rule.name, Rule.operation, Rule.scope):
        word = getattr(query, column.key)
        if word is not None:
            statement = statement.where(column == word.lower())
    if query.role_id is not None:
        statement = statement.where(
            Rule.id.in_(select(role_rule.c.rule_id).where(role_rule.c.role_id == query.role_id))
        )
    if query.user_id is not None:
        statement = statement.where(
            Rule.id.in_(select(user_rule.c.rule_id).where(user_rule.c.user_id == query.user_id))
        )
    return paged(call, statement, query, each(show_rule), sorts=RULE_SORTS, default=Rule.id.asc())


@calls(Kind.USER, answer=answers.Rule)
def get_rule(call: Call, id_: int) -> dict[str, Any]:
    rule = call.session.get(Rule, id_)
    if rule is None:
        raise NotKnown("rule", id_)
    return show_rule(call, rule)


def register(door: Blueprint) -> None:
    door.get("/user", endpoint="users")(list_users)
    door.post("/user", endpoint="user_create")(create_user)
    door.get("/user/<id:id_>", endpoint="user")(get_user)
    door.patch("/user/<id:id_>", endpoint="user_change")(change_user)
    door.delete("/user/<id:id_>", endpoint="user_delete")(delete_user)
    door.get("/role", endpoint="roles")(list_roles)
    door.post("/role", endpoint="role_create")(create_role)
    door.get("/role/<id:id_>", endpoint="role")(get_role)
    door.patch("/role/<id:id_>", endpoint="role_change")(change_role)
    door.delete("/role/<id:id_>", endpoint="role_delete")(delete_role)
    door.post("/role/<id:id_>/rule/<id:rule_id>", endpoint="role_add_rule")(add_rule)
    door.delete("/role/<id:id_>/rule/<id:rule_id>", endpoint="role_remove_rule")(remove_rule)
    door.get("/rule", endpoint="rules")(list_rules)
    door.get("/rule/<id:id_>", endpoint="rule")(get_rule)


def show_user(call: Call, user: User) -> dict[str, Any]:
    online = user.last_seen is not None
    return {
        "id": user.id,
        "type": "user",
        "username": user.username,
        "firstname": user.firstname,
        "lastname": user.lastname,
        "email": user.email,
        "ip": None,
        "last_seen": moment(user.last_seen),
        "status": "online" if online else "offline",
        "disabled": user.disabled,
        "otp_secret": None,
        "last_email_failed_login_sent": None,
        "last_email_recover_password_sent": None,
        "organization": one(call, "organization", user.organization_id),
        "roles": many(call, "role", user_id=user.id),
        "rules": many(call, "rule", user_id=user.id),
    }


def show_role(call: Call, role: Role) -> dict[str, Any]:
    return {
        "id": role.id,
        "name": role.name,
        "description": role.description,
        "is_default_role": role.is_default,
        "organization": one(call, "organization", role.organization_id),
        "rules": many(call, "rule", role_id=role.id),
        "users": many(call, "user", role_id=role.id),
    }


def show_rule(call: Call, rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "operation": rule.operation.upper(),
        "scope": rule.scope.upper(),
        "description": rule.description,
        "users": many(call, "user", rule_id=rule.id),
    }
