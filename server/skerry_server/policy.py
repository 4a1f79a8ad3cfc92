"""Who may do what: resources, operations, scopes, rules and default roles as one table.

Source: the vantage6 contract, section 11. Additions: users may kill their own tasks; the read-only Auditor role; who
may read the audit trail; a run sees its own job only, a node its own organization's runs only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from skerry.audit import Who


class Resource(StrEnum):
    USER = "user"
    ORGANIZATION = "organization"
    COLLABORATION = "collaboration"
    STUDY = "study"
    ROLE = "role"
    NODE = "node"
    TASK = "task"
    RUN = "run"
    EVENT = "event"
    PORT = "port"
    AUDIT = "audit"


class Operation(StrEnum):
    VIEW = "view"
    EDIT = "edit"
    CREATE = "create"
    DELETE = "delete"
    SEND = "send"
    RECEIVE = "receive"


class Scope(StrEnum):
    OWN = "own"
    ORGANIZATION = "organization"
    COLLABORATION = "collaboration"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule: an operation on a resource, as far as the scope reaches."""

    resource: Resource
    operation: Operation
    scope: Scope


def grants(*lines: str) -> frozenset[Grant]:
    """From lines such as "task view own organization"."""
    found = set()
    for line in lines:
        resource, operation, *scopes = line.split()
        found |= {Grant(Resource(resource), Operation(operation), Scope(scope)) for scope in scopes}
    return frozenset(found)


EVERYTHING = grants(
    "user view organization collaboration global",
    "user edit own organization collaboration global",
    "user create organization collaboration global",
    "user delete own organization collaboration global",
    "organization view organization collaboration global",
    "organization edit organization collaboration global",
    "organization create global",
    "organization delete global",
    "collaboration view organization global",
    "collaboration edit collaboration global",
    "collaboration create global",
    "collaboration delete collaboration global",
    "study view organization collaboration global",
    "study edit organization collaboration global",
    "study create collaboration global",
    "study delete organization collaboration global",
    "role view organization collaboration global",
    "role edit organization collaboration global",
    "role create organization collaboration global",
    "role delete organization collaboration global",
    "node view organization collaboration global",
    "node edit organization collaboration global",
    "node create organization collaboration global",
    "node delete organization collaboration global",
    "task view own organization collaboration global",
    "task create collaboration global",
    "task delete own organization collaboration global",
    "run view own organization collaboration global",
    "event send organization collaboration global",
    "event receive organization collaboration global",
    "port view organization global",
    "audit view organization collaboration global",
)

_VIEWER = grants(
    "user view organization",
    "user edit own",
    "user delete own",
    "organization view organization collaboration",
    "collaboration view organization",
    "role view organization",
    "node view organization collaboration",
    "task view collaboration",
    "run view collaboration",
    "port view organization",
    "event receive organization collaboration",
    "study view organization",
)
_RESEARCHER = _VIEWER | grants("task create collaboration", "task delete organization")
_ORGANIZATION_ADMIN = _VIEWER | grants(
    "user create organization",
    "user edit organization",
    "user delete organization",
    "organization edit organization",
    "role create organization",
    "role edit organization",
    "role delete organization",
    "node create organization",
    "node edit organization",
    "event send organization",
)
_COLLABORATION_ADMIN = (
    _ORGANIZATION_ADMIN
    | _RESEARCHER
    | grants(
        "user view collaboration",
        "user create collaboration",
        "user edit collaboration",
        "organization view global",
        "organization edit collaboration",
        "collaboration edit collaboration",
        "role view collaboration",
        "node view collaboration",
        "node create collaboration",
        "node delete collaboration",
        "event send collaboration",
        "study view collaboration",
        "study create collaboration",
        "study edit collaboration",
        "study delete collaboration",
    )
)
_AUDITOR = grants(
    "user view organization collaboration",
    "organization view organization collaboration",
    "collaboration view organization",
    "study view organization collaboration",
    "role view organization collaboration",
    "node view organization collaboration",
    "task view organization collaboration",
    "run view organization collaboration",
    "port view organization",
    "audit view organization collaboration",
    "event receive organization collaboration",
)


@dataclass(frozen=True, slots=True)
class DefaultRole:
    description: str
    grants: frozenset[Grant]


ROOT = "Root"
DEFAULT_ROLES: Mapping[str, DefaultRole] = {
    ROOT: DefaultRole("May do everything.", EVERYTHING),
    "Collaboration Admin": DefaultRole("Administers the collaborations of an organization.", _COLLABORATION_ADMIN),
    "Organization Admin": DefaultRole("Administers one organization.", _ORGANIZATION_ADMIN),
    "Researcher": DefaultRole("Looks, and creates tasks.", _RESEARCHER),
    "Viewer": DefaultRole("Looks at what happens in the organization's collaborations.", _VIEWER),
    "Auditor": DefaultRole("Sees all that others do in the organization's collaborations, changes nothing.", _AUDITOR),
}

RUN_GRANTS = grants(
    "task view collaboration",
    "run view collaboration",
    "node view organization",
    "organization view organization collaboration",
    "collaboration view organization",
    "study view organization",
    "port view organization",
)
NODE_GRANTS = RUN_GRANTS | grants("node edit organization", "organization edit organization")


class Kind(StrEnum):
    """Who calls: each has tokens of its own, which are refused in place of another's."""

    USER = "user"
    NODE = "node"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class CallingRun:
    """Which run calls, and for what it was started. ``ended``: it may only hear that it has ended."""

    attempt: int
    task_id: int
    job_id: int
    collaboration_id: int
    node_id: int
    image: str
    ended: bool


@dataclass(frozen=True)
class Actor:
    """A caller that proved who it is. ``collaborations``: those it belongs to, each with its member organizations.

    The members may be looked up when they are asked for: an actor is of one transaction.
    """

    kind: Kind
    id: int
    organization_id: int
    collaborations: Mapping[int, frozenset[int]]
    grants: frozenset[Grant]
    run: CallingRun | None = None

    @cached_property
    def partners(self) -> frozenset[int]:
        """Its own organization and all that share a collaboration with it."""
        return frozenset[int]().union(*self.collaborations.values(), {self.organization_id})

    @property
    def label(self) -> str:
        """Names the actor in a row: "user:3"."""
        return f"{self.kind}:{self.id}"

    @property
    def who(self) -> Who:
        """Names the actor in an audit record."""
        return Who(str(self.kind), self.id, self.organization_id)

    def scopes(self, resource: Resource, operation: Operation) -> frozenset[Scope]:
        return frozenset(g.scope for g in self.grants if g.resource is resource and g.operation is operation)

    def may(
        self,
        resource: Resource,
        operation: Operation,
        *,
        owner: int | None = None,
        organizations: Collection[int] = (),
        collaborations: Collection[int] = (),
    ) -> bool:
        """Whether a scope of the actor's rules reaches a thing.

        The thing belongs to the user ``owner``, to ``organizations`` and to ``collaborations``. Where it belongs to
        no collaboration of its own (a user, an organization), those of its organizations count.
        """
        scopes = self.scopes(resource, operation)
        near = (
            any(c in self.collaborations for c in collaborations)
            if collaborations
            else any(o in self.partners for o in organizations)
        )
        return (
            Scope.GLOBAL in scopes
            or (Scope.COLLABORATION in scopes and near)
            or (Scope.ORGANIZATION in scopes and self.organization_id in organizations)
            or (Scope.OWN in scopes and self.kind is Kind.USER and owner == self.id)
        )

    def may_hand_out(self, grants: Collection[Grant]) -> bool:
        """Nobody gives what they do not have: a wider scope covers the narrower ones."""
        return all(self._covers(grant) for grant in grants)

    def _covers(self, grant: Grant) -> bool:
        order = list(Scope)
        held = self.scopes(grant.resource, grant.operation)
        return any(order.index(scope) >= order.index(grant.scope) for scope in held)
