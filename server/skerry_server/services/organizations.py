"""Organizations and their public keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, bindparam, cast, exists, false, or_, select, true
from sqlalchemy.orm import Session

from skerry.errors import CryptoError
from skerry.keys import OrganizationKeys, load_encryption_key
from skerry.statements import MAXIMUM_STATEMENTS, Revocation, Succession
from skerry.wire import unb64
from skerry_server import locks
from skerry_server.errors import Conflicting, InvalidRequest, NotKnown, PermissionDenied
from skerry_server.events import announce, node_topic
from skerry_server.models import Collaboration, Node, Organization, Payload, Role, Run, Task, User, member
from skerry_server.models import Succession as StoredSuccession
from skerry_server.policy import Actor, Kind, Operation, Resource, Scope
from skerry_server.services.tasks import descendants, remove_runs, remove_tasks

_KEYS = (
    select(Organization.id, Organization.public_key, Organization.signing_key, cast(Organization.revocation, Text))
    .join(member)
    .where(member.c.collaboration_id == bindparam("collaboration"))
    .order_by(Organization.id)
)
"""All that the members of a collaboration say of their keys."""


def create_organization(session: Session, actor: Actor, fields: dict[str, Any]) -> Organization:
    """Raises PermissionDenied or InvalidRequest."""
    if not actor.may(Resource.ORGANIZATION, Operation.CREATE):
        raise PermissionDenied
    return found_organization(session, fields)


def found_organization(session: Session, fields: dict[str, Any]) -> Organization:
    """The same without asking who wants it. Raises InvalidRequest."""
    _refuse_taken(session, fields["name"])
    organization = Organization(**_with_key(fields))
    session.add(organization)
    session.flush()
    return organization


def change_organization(session: Session, actor: Actor, id_: int, fields: dict[str, Any]) -> Organization:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    organization = _get(session, id_)
    if not actor.may(Resource.ORGANIZATION, Operation.EDIT, organizations=[id_]):
        raise PermissionDenied
    if fields.get("name", organization.name) != organization.name:
        _refuse_taken(session, fields["name"])
    if "public_key" in fields:
        _check_key_change(actor, organization, fields["public_key"])
    for name, value in _with_key(fields).items():
        setattr(organization, name, value)
    return organization


def delete_organization(
    session: Session, actor: Actor, id_: int, *, dependents: bool, now: datetime
) -> Sequence[Payload]:
    """Gives the payloads whose files the caller removes. Raises NotKnown, PermissionDenied or InvalidRequest."""
    organization = _get(session, id_)
    if not actor.may(Resource.ORGANIZATION, Operation.DELETE):
        raise PermissionDenied
    if id_ == actor.organization_id:
        raise InvalidRequest("You can't delete your own organization.")
    columns = {"user": User.organization_id, "node": Node.organization_id, "role": Role.organization_id}
    columns |= {"task": Task.init_org_id, "run": Run.organization_id}
    found = [name for name, column in columns.items() if session.scalar(select(exists().where(column == id_)))]
    if found and not dependents:
        raise InvalidRequest(
            f'Organization {id_} still has: {", ".join(found)}. Set "delete_dependents" to delete them too.'
        )
    payloads = [*_remove_tasks_of(session, id_, now), *remove_runs(session, Run.organization_id == id_, now)]
    orphans = session.scalars(select(Node.id).where(Node.organization_id == id_))
    announce(session, [node_topic(node_id) for node_id in orphans], now)
    session.delete(organization)
    session.flush()
    return payloads


def find_organization(session: Session, actor: Actor, id_: int) -> Organization:
    """Raises NotKnown or PermissionDenied."""
    organization = _get(session, id_)
    if not actor.may(Resource.ORGANIZATION, Operation.VIEW, organizations=[id_]):
        raise PermissionDenied
    return organization


def visible_organizations(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.ORGANIZATION, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.COLLABORATION in scopes:
        reached.append(Organization.id.in_(actor.partners))
    if Scope.ORGANIZATION in scopes:
        reached.append(Organization.id == actor.organization_id)
    return or_(*reached)


def keys_of(session: Session, actor: Actor, collaboration_id: int) -> Sequence[Organization]:
    """The members of a collaboration that have registered keys. Raises NotKnown or PermissionDenied."""
    if session.get(Collaboration, collaboration_id) is None:
        raise NotKnown("collaboration", collaboration_id)
    if collaboration_id not in actor.collaborations and not actor.may(Resource.ORGANIZATION, Operation.VIEW):
        raise PermissionDenied
    members = select(Organization).join(member).where(member.c.collaboration_id == collaboration_id)
    return session.scalars(members.where(Organization.public_key.is_not(None)).order_by(Organization.id)).all()


def register_keys(session: Session, actor: Actor, id_: int, wire: dict[str, Any]) -> Organization:
    """Takes an organization's keys once; a signing key may be added to an encryption key that is there.

    Repeating what is registered changes nothing, and any of its members may: a client does at each start. Raises
    NotKnown, PermissionDenied, InvalidRequest, or Conflicting when others are registered.
    """
    organization = _locked(session, id_)
    own_node = actor.kind is Kind.NODE and actor.organization_id == id_
    scopes = actor.scopes(Resource.ORGANIZATION, Operation.EDIT)
    # A partner's administrator could otherwise speak for an organization that has not registered its keys yet.
    near = bool(scopes) if actor.organization_id == id_ else Scope.GLOBAL in scopes
    keys = _parse(id_, wire)
    known = (organization.public_key, organization.signing_key) == (keys.encryption, keys.signing)
    if known and actor.organization_id == id_:
        return organization
    if not (own_node or (actor.kind is Kind.USER and near)):
        raise PermissionDenied
    if (organization.public_key or keys.encryption) != keys.encryption or (
        organization.signing_key is not None and organization.signing_key != keys.signing
    ):
        raise Conflicting(f"Organization {id_} has registered other keys.")
    organization.public_key = keys.encryption
    if keys.signing is not None:
        organization.signing_key, organization.binding = keys.signing, unb64(wire["binding"])
    return organization


def succeed_keys(session: Session, actor: Actor, id_: int, statement: dict[str, Any]) -> Organization:
    """Replaces an organization's keys, by the word of the present ones; repeating it changes nothing.

    Raises NotKnown, PermissionDenied, InvalidRequest for a statement that does not hold, or Conflicting when there are
    too many.
    """
    organization = _speaking_for(session, actor, id_)
    try:
        succession = Succession.parse(statement)
        if _native_keys(organization) == succession.keys:
            return organization
        succession.verify(_native_keys(organization))
    except CryptoError as error:
        raise InvalidRequest(f"The statement about the organization's new keys does not hold: {error}") from error
    if len(organization.successions) >= MAXIMUM_STATEMENTS:
        raise Conflicting(f"Organization {id_} has replaced its keys {MAXIMUM_STATEMENTS} times: no more are kept.")
    keys = succession.keys
    organization.public_key, organization.signing_key = keys.encryption, keys.signing
    organization.binding = unb64(statement["binding"])
    organization.successions.append(StoredSuccession(statement=statement))
    session.flush()
    return organization


def clear_keys(session: Session, actor: Actor, id_: int) -> Organization:
    """Forgets an organization's keys and what they said, for one that has lost them: it may register new ones.

    No partner believes those before its owner has confirmed them. Only for who may edit all organizations, so that
    nobody does it for themselves alone. Raises NotKnown, PermissionDenied, or InvalidRequest where there are none.
    """
    organization = _locked(session, id_)
    if actor.kind is not Kind.USER or Scope.GLOBAL not in actor.scopes(Resource.ORGANIZATION, Operation.EDIT):
        raise PermissionDenied
    if organization.public_key is None:
        raise InvalidRequest(f"Organization {id_} has registered no keys.")
    for succession in organization.successions:
        session.delete(succession)
    organization.public_key = organization.signing_key = organization.binding = organization.revocation = None
    session.flush()
    session.refresh(organization)
    return organization


def revoke_certificates(session: Session, actor: Actor, id_: int, statement: dict[str, Any]) -> Organization:
    """Takes an organization's list of void certificates in place of an older one.

    Raises NotKnown, PermissionDenied, InvalidRequest for a list that does not hold, or Conflicting for an older one.
    """
    organization = _speaking_for(session, actor, id_)
    try:
        revocation = Revocation.parse(statement)
        revocation.verify(_native_keys(organization))
    except CryptoError as error:
        raise InvalidRequest(f"The list of revoked certificates does not hold: {error}") from error
    known = organization.revocation
    if known is not None and known["created"] >= revocation.created and known != statement:
        raise Conflicting("A newer list of revoked certificates is here already: revoke again.")
    organization.revocation = statement
    session.flush()
    return organization


def keys_version(session: Session, collaboration_id: int) -> str:
    """Changes whenever a member of the collaboration has said something new about its keys."""
    rows = session.connection().execute(_KEYS, {"collaboration": collaboration_id})
    return hashlib.sha256(repr(rows.all()).encode()).hexdigest()


def _speaking_for(session: Session, actor: Actor, id_: int) -> Organization:
    """The organization, for a user of its own who may edit it. Raises NotKnown or PermissionDenied."""
    organization = _locked(session, id_)
    may = actor.kind is Kind.USER and bool(actor.scopes(Resource.ORGANIZATION, Operation.EDIT))
    if actor.organization_id != id_ or not may:
        raise PermissionDenied
    return organization


def _native_keys(organization: Organization) -> OrganizationKeys:
    """Raises InvalidRequest when it has registered none that can sign."""
    if organization.public_key is None or organization.signing_key is None:
        raise InvalidRequest(f"Organization {organization.id} has registered no keys that can sign.")
    return OrganizationKeys(organization.id, organization.public_key, organization.signing_key)


def _remove_tasks_of(session: Session, id_: int, now: datetime) -> list[Payload]:
    own = list(session.scalars(select(Task).where(Task.init_org_id == id_)))
    below = descendants(session, [task.id for task in own])
    return remove_tasks(session, list({task.id: task for task in [*own, *below]}.values()), now)


def _locked(session: Session, id_: int) -> Organization:
    """For what depends on the keys that are there: of two who replace them at once, the second sees the first."""
    locks.row(session, Organization, id_)
    return _get(session, id_)


def _get(session: Session, id_: int) -> Organization:
    organization = session.get(Organization, id_)
    if organization is None:
        raise NotKnown("organization", id_)
    return organization


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalar(select(Organization.id).where(Organization.name == name)) is not None:
        raise InvalidRequest(f'Organization with name "{name}" already exists!')


def _with_key(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "public_key": fields["public_key"] or None} if "public_key" in fields else fields


def _check_key_change(actor: Actor, organization: Organization, public_key: bytes) -> None:
    """vantage6's clients overwrite a key that differs from theirs; bound to a signing key it can't be overwritten."""
    if actor.organization_id != organization.id:
        raise PermissionDenied("You can only change the public key of your own organization.")
    if organization.signing_key is not None and public_key != organization.public_key:
        raise InvalidRequest("This organization's public key is bound to its signing key and can't be replaced here.")


def decode_public_key(text: str) -> bytes:
    """The PEM bytes behind the wire's base64; "" stands for none. Raises InvalidRequest."""
    try:
        pem = unb64(text)
        if pem:
            load_encryption_key(pem)
    except (ValueError, CryptoError) as error:
        raise InvalidRequest('"public_key" must be base64 of a PEM public key (RSA, 2048 bits or more).') from error
    return pem


def _parse(id_: int, wire: dict[str, Any]) -> OrganizationKeys:
    try:
        keys = OrganizationKeys.from_wire(wire)
    except CryptoError as error:
        raise InvalidRequest(str(error)) from error
    if keys.organization_id != id_:
        raise InvalidRequest('"organization_id" differs from the one in the address.')
    return keys
