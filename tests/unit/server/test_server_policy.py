"""The permission table against the contract's, written down again by hand (section 11)."""

from __future__ import annotations

import pytest

from skerry_server.policy import DEFAULT_ROLES, EVERYTHING, Actor, Grant, Kind, Operation, Resource, Scope

pytestmark = pytest.mark.unit

OPERATIONS = ("view", "edit", "create", "delete", "send", "receive")
LETTERS = {"own": Scope.OWN, "org": Scope.ORGANIZATION, "col": Scope.COLLABORATION, "glo": Scope.GLOBAL}
TABLE = """
user          | org col glo     | own org col glo | org col glo | own org col glo |             |
organization  | org col glo     | org col glo     | glo         | glo             |             |
collaboration | org glo         | col glo         | glo         | col glo         |             |
study         | org col glo     | org col glo     | col glo     | org col glo     |             |
role          | org col glo     | org col glo     | org col glo | org col glo     |             |
node          | org col glo     | org col glo     | org col glo | org col glo     |             |
task          | own org col glo |                 | col glo     | own org col glo |             |
run           | own org col glo |                 |             |                 |             |
event         |                 |                 |             |                 | org col glo | org col glo
port          | org glo         |                 |             |                 |             |
"""
OURS = {"audit view org", "audit view col", "audit view glo"}


def grant(text: str) -> Grant:
    resource, operation, scope = text.split()
    return Grant(Resource(resource), Operation(operation), LETTERS[scope])


def table() -> set[Grant]:
    found = set()
    for line in TABLE.strip().splitlines():
        resource, *cells = [cell.strip() for cell in line.split("|")]
        for operation, cell in zip(OPERATIONS, cells, strict=True):
            found |= {grant(f"{resource} {operation} {scope}") for scope in cell.split()}
    return found | set(map(grant, OURS))


def test_the_rules_are_the_contracts() -> None:
    assert table() == EVERYTHING
    assert len(EVERYTHING) == 86 + len(OURS)


@pytest.mark.parametrize(
    ("role", "has", "lacks"),
    [
        ("Viewer", "task view col", "task create col"),
        ("Viewer", "user edit own", "user edit org"),
        ("Researcher", "task create col", "task create glo"),
        ("Researcher", "task delete org", "event send org"),
        ("Organization Admin", "user create org", "task create col"),
        ("Organization Admin", "event send org", "node delete org"),
        ("Collaboration Admin", "event send col", "collaboration create glo"),
        ("Collaboration Admin", "organization view glo", "user delete col"),
        ("Root", "collaboration delete glo", ""),
    ],
)
def test_default_roles(role: str, has: str, lacks: str) -> None:
    grants = DEFAULT_ROLES[role].grants
    assert grant(has) in grants
    assert not lacks or grant(lacks) not in grants


def test_default_roles_hold_only_rules_that_there_are() -> None:
    assert all(role.grants <= EVERYTHING for role in DEFAULT_ROLES.values())


def test_an_auditor_changes_nothing() -> None:
    assert {g.operation for g in DEFAULT_ROLES["Auditor"].grants} == {Operation.VIEW, Operation.RECEIVE}


def actor(*grants: str, kind: Kind = Kind.USER) -> Actor:
    """User 7 of organization 1, which works with 2 in collaboration 10; 3 is in 11 with others."""
    return Actor(kind, 7, 1, {10: frozenset({1, 2})}, frozenset(map(grant, grants)))


@pytest.mark.parametrize(
    ("rule", "thing", "allowed"),
    [
        ("task view own", {"owner": 7}, True),
        ("task view own", {"owner": 8, "organizations": [1], "collaborations": [10]}, False),
        ("task view org", {"owner": 8, "organizations": [1], "collaborations": [11]}, True),
        ("task view org", {"organizations": [2], "collaborations": [10]}, False),
        ("task view col", {"organizations": [2], "collaborations": [10]}, True),
        ("task view col", {"organizations": [1], "collaborations": [11]}, False),
        ("task view glo", {"organizations": [3], "collaborations": [11]}, True),
        ("user view col", {"organizations": [2]}, True),
        ("user view col", {"organizations": [3]}, False),
        ("user view org", {"organizations": [1]}, True),
        ("user edit own", {"owner": 7, "organizations": [1]}, False),
    ],
)
def test_how_far_a_scope_reaches(rule: str, thing: dict[str, object], *, allowed: bool) -> None:
    resource = grant(rule).resource
    assert actor(rule).may(resource, Operation.VIEW, **thing) is allowed  # type: ignore[arg-type]


def test_own_is_for_users() -> None:
    run = actor("task view own", kind=Kind.RUN)
    assert not run.may(Resource.TASK, Operation.VIEW, owner=7)


def test_nobody_gives_what_they_lack() -> None:
    admin = actor("user view col", "task view org")
    assert admin.may_hand_out([grant("user view org"), grant("task view own")])
    assert not admin.may_hand_out([grant("user view glo")])
    assert not admin.may_hand_out([grant("node view org")])
