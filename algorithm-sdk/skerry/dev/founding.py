"""Founds the organizations, their collaboration, users and nodes at a running server."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skerry.dev.connection import Connection
from skerry.dev.plan import Plan
from skerry.keys import Identity

ROOT = "root"


@dataclass(frozen=True, slots=True)
class Member:
    """One organization with its researcher and the node that it was given."""

    organization: dict[str, Any]
    researcher: dict[str, Any]
    node: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Founded:
    collaboration: dict[str, Any]
    members: tuple[Member, ...]


def organization_name(number: int) -> str:
    return f"organization {number}"


def new_password() -> str:
    """Random, with a lower-case and an upper-case letter, a digit and a sign, as the server's policy asks."""
    return f"Aa1-{secrets.token_urlsafe(18)}"


def found(connection: Connection, plan: Plan, identities: Sequence[Identity]) -> Founded:
    """The first organization is there already: Root belongs to it. Raises ServerError."""
    organizations = _organizations(connection, plan.nodes)
    ids = [organization["id"] for organization in organizations]
    collaboration = connection.post(
        "collaboration",
        {"name": plan.name, "organization_ids": ids, "encrypted": plan.encrypted, "accept": plan.accept},
    )
    for id_, identity in zip(ids, identities, strict=True):
        connection.put(f"skerry/organization/{id_}/keys", identity.organization_keys(id_))
    role = _role(connection, "Researcher")
    members = [
        Member(
            organization,
            _researcher(connection, number, organization["id"], role),
            _node(connection, collaboration, organization),
        )
        for number, organization in enumerate(organizations, start=1)
    ]
    return Founded(collaboration, tuple(members))


def _organizations(connection: Connection, count: int) -> list[dict[str, Any]]:
    [first] = connection.get("organization", name=organization_name(1))["data"]
    others = [connection.post("organization", {"name": organization_name(n)}) for n in range(2, count + 1)]
    return [first, *others]


def _role(connection: Connection, name: str) -> int:
    roles = connection.get("role", name=name)["data"]
    return int(next(role["id"] for role in roles if role["name"] == name))


def _researcher(connection: Connection, number: int, organization: int, role: int) -> dict[str, Any]:
    user = {"username": f"researcher-{number}", "password": new_password()}
    about = {"email": f"researcher-{number}@example.org", "firstname": "Researcher", "lastname": str(number)}
    connection.post("user", {**user, **about, "organization_id": organization, "roles": [role]})
    return {**user, "organization_id": organization}


def _node(connection: Connection, collaboration: dict[str, Any], organization: dict[str, Any]) -> dict[str, Any]:
    body = {"collaboration_id": collaboration["id"], "organization_id": organization["id"]}
    name = organization["name"].replace("organization", "node")
    node: dict[str, Any] = connection.post("node", {**body, "name": name})
    return node
