"""Taking over the organizations, users, collaborations and nodes of another server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from skerry_server import passwords
from skerry_server.errors import InvalidRequest
from skerry_server.migrants import Alliance, Member, Migration, Person, Problems
from skerry_server.models import Collaboration, Node, Organization, Role, User
from skerry_server.policy import DEFAULT_ROLES
from skerry_server.services.login import digest_api_key, new_api_key
from skerry_server.services.organizations import decode_public_key, found_organization

ACCEPT = "both"


@dataclass(slots=True)
class Taken:
    """What was taken over; ``new_keys``: node → the API key that was made for it, shown this once."""

    organizations: int = 0
    users: int = 0
    collaborations: int = 0
    nodes: int = 0
    new_keys: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def take_over(session: Session, migration: Migration, role: str, *, weak_passwords: bool) -> Taken:
    """Writes all of it, or nothing. Users get ``role`` unless their entry names others.

    API keys stay what they are, so that nodes go on with their configurations. Raises Problems with all that is
    wrong: names that are there already, or twice, or nowhere; weak passwords; keys that are none.
    """
    found = [*_repeated(migration), *_taken(session, migration), *_unknown(session, migration)]
    found += _bad_keys(migration)
    found += [] if weak_passwords else _weak(migration)
    found += [] if role in DEFAULT_ROLES else [f'There is no default role "{role}": {", ".join(DEFAULT_ROLES)}.']
    if found:
        raise Problems(found)
    taken, roles = Taken(), {one.name: one for one in session.scalars(select(Role).where(Role.is_default))}
    for member in migration.organizations:
        _organization(session, member, roles, role, taken)
    for alliance in migration.collaborations:
        _collaboration(session, alliance, taken)
    return taken


# --- what may be wrong -----------------------------------------------------------------------------------


def _people(migration: Migration) -> Iterator[tuple[str, Person]]:
    for i, member in enumerate(migration.organizations):
        for j, person in enumerate(member.users):
            yield f"organizations[{i}].users[{j}]", person


def _keys(migration: Migration) -> Iterator[tuple[str, str]]:
    for i, alliance in enumerate(migration.collaborations):
        for j, participant in enumerate(alliance.participants):
            if participant.api_key is not None:
                yield f"collaborations[{i}].participants[{j}].api_key", participant.api_key


def _named(migration: Migration) -> dict[str, list[tuple[str, str]]]:
    """All that must be unique: what it is → its places and values."""
    members, alliances = enumerate(migration.organizations), enumerate(migration.collaborations)
    return {
        "organization": [(f"organizations[{i}].name", one.name) for i, one in members],
        "collaboration": [(f"collaborations[{i}].name", one.name) for i, one in alliances],
        "username": [(f"{place}.username", person.username) for place, person in _people(migration)],
        "email": [(f"{place}.email", person.address) for place, person in _people(migration)],
        "API key": list(_keys(migration)),
    }


def _repeated(migration: Migration) -> Iterator[str]:
    for what, values in _named(migration).items():
        count = Counter(value for _, value in values)
        for place, value in values:
            if count[value] > 1:
                yield f"{place}: the {what} {_shown(what, value)}appears {count[value]} times."
    for i, alliance in enumerate(migration.collaborations):
        twice = [name for name, count in Counter(one.name for one in alliance.participants).items() if count > 1]
        for name in twice:
            yield f'collaborations[{i}].participants: "{name}" appears twice.'


def _taken(session: Session, migration: Migration) -> Iterator[str]:
    columns = {
        "organization": Organization.name,
        "collaboration": Collaboration.name,
        "username": User.username,
        "email": User.email,
    }
    for what, values in _named(migration).items():
        for place, value in values:
            column, wanted = (columns[what], value) if what in columns else (Node.api_key, digest_api_key(value))
            if session.scalar(select(column).where(column == wanted)) is not None:
                yield f"{place}: the {what} {_shown(what, value)}is there already."


def _shown(what: str, value: str) -> str:
    """A key is a secret, so it isn't repeated."""
    return "" if what == "API key" else f'"{value}" '


def _unknown(session: Session, migration: Migration) -> Iterator[str]:
    """Participants that are organizations neither of the file nor of this server, and roles that are none."""
    new = {member.name for member in migration.organizations}
    for i, alliance in enumerate(migration.collaborations):
        for j, one in enumerate(alliance.participants):
            if one.name not in new and _organization_named(session, one.name) is None:
                yield f'collaborations[{i}].participants[{j}].name: there is no organization "{one.name}".'
    for place, person in _people(migration):
        for name in sorted(set(person.roles or ()) - set(DEFAULT_ROLES)):
            yield f'{place}.roles: there is no default role "{name}": {", ".join(DEFAULT_ROLES)}.'


def _bad_keys(migration: Migration) -> Iterator[str]:
    for i, member in enumerate(migration.organizations):
        try:
            decode_public_key(member.public_key or "")
        except InvalidRequest as error:
            yield f"organizations[{i}].public_key: {error}"


def _weak(migration: Migration) -> Iterator[str]:
    for place, person in _people(migration):
        try:
            passwords.check_strength(person.password)
        except InvalidRequest as error:
            yield f"{place}.password: {error}"


# --- writing it ------------------------------------------------------------------------------------------


def _organization(session: Session, member: Member, roles: dict[str, Role], role: str, taken: Taken) -> None:
    fields = member.model_dump(exclude={"users"}, exclude_none=True)
    fields["public_key"] = decode_public_key(member.public_key or "")
    organization = found_organization(session, fields)
    taken.organizations += 1
    for person in member.users:
        names: Sequence[str] = person.roles if person.roles is not None else [role]
        user = User(
            username=person.username,
            email=person.address,
            firstname=person.firstname,
            lastname=person.lastname,
            password=passwords.hash_password(person.password),
            organization=organization,
            roles=[roles[name] for name in names],
        )
        session.add(user)
        taken.users += 1
        if person.email is None:
            taken.notes.append(f'User "{person.username}" has no email, so they can\'t recover a lost password.')
    session.flush()


def _collaboration(session: Session, alliance: Alliance, taken: Taken) -> None:
    organizations = [_organization_named(session, one.name) for one in alliance.participants]
    members = [organization for organization in organizations if organization is not None]
    collaboration = Collaboration(
        name=alliance.name, encrypted=alliance.encrypted, accept=ACCEPT, organizations=members
    )
    session.add(collaboration)
    taken.collaborations += 1
    for organization, participant in zip(members, alliance.participants, strict=True):
        key, name = participant.api_key or new_api_key(), f"{organization.name} - {collaboration.name} Node"
        if participant.api_key is None:
            taken.new_keys[name] = key
        digest = digest_api_key(key)
        session.add(Node(name=name, organization=organization, collaboration=collaboration, api_key=digest))
        taken.nodes += 1
    session.flush()
    if alliance.tasks:
        taken.notes.append(f'The {len(alliance.tasks)} task(s) of "{alliance.name}" have no counterpart: left out.')


def _organization_named(session: Session, name: str) -> Organization | None:
    return session.scalar(select(Organization).where(Organization.name == name))
