"""Collaborations and studies: who works together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, exists, false, or_, select, true
from sqlalchemy.orm import Session

from skerry_server.errors import InvalidRequest, NotKnown, PermissionDenied
from skerry_server.events import announce, node_topic
from skerry_server.models import Collaboration, Node, Organization, Payload, Run, Study, Task, member, study_member
from skerry_server.policy import Actor, Operation, Resource, Scope
from skerry_server.services.tasks import end_open_tasks, end_runs, remove_tasks


def create_collaboration(
    session: Session, actor: Actor, fields: dict[str, Any], organization_ids: Sequence[int]
) -> Collaboration:
    """Raises PermissionDenied or InvalidRequest."""
    if not actor.may(Resource.COLLABORATION, Operation.CREATE):
        raise PermissionDenied
    _refuse_taken(session, Collaboration, fields["name"])
    organizations = existing_organizations(session, organization_ids)
    collaboration = Collaboration(**fields, organizations=organizations)
    session.add(collaboration)
    session.flush()
    return collaboration


def change_collaboration(  # noqa: PLR0917 - what a change says
    session: Session,
    actor: Actor,
    id_: int,
    fields: dict[str, Any],
    organization_ids: Sequence[int] | None,
    now: datetime,
) -> Collaboration:
    """Widening a collaboration takes a global rule. Organizations that are no longer named leave as by `remove_member`.

    Raises NotKnown, PermissionDenied or InvalidRequest.
    """
    collaboration = editable_collaboration(session, actor, id_, widen=organization_ids is not None)
    if fields.get("name", collaboration.name) != collaboration.name:
        _refuse_taken(session, Collaboration, fields["name"])
    for name, value in fields.items():
        setattr(collaboration, name, value)
    if organization_ids is not None:
        before = {organization.id for organization in collaboration.organizations}
        collaboration.organizations = existing_organizations(session, organization_ids)
        _shut_out(session, id_, before - set(organization_ids), now)
    return collaboration


def add_member(session: Session, actor: Actor, id_: int, organization_id: int) -> Collaboration:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    collaboration = editable_collaboration(session, actor, id_, widen=True)
    [organization] = existing_organizations(session, [organization_id])
    if organization not in collaboration.organizations:
        collaboration.organizations.append(organization)
    return collaboration


def remove_member(session: Session, actor: Actor, id_: int, organization_id: int, now: datetime) -> Collaboration:
    """The organization's runs and open tasks here end at once, and its node is out until it is a member again.

    Raises NotKnown, PermissionDenied or InvalidRequest.
    """
    collaboration = editable_collaboration(session, actor, id_, widen=True)
    if organization_id in {organization.id for organization in collaboration.organizations}:
        collaboration.organizations = [o for o in collaboration.organizations if o.id != organization_id]
        _shut_out(session, id_, {organization_id}, now)
    return collaboration


def _shut_out(session: Session, id_: int, organizations: set[int], now: datetime) -> None:
    """Ends what these have to do with the collaboration, and lets their nodes look: they are told that they are out."""
    if not organizations:
        return
    for study in session.scalars(select(Study).where(Study.collaboration_id == id_)):
        study.organizations = [o for o in study.organizations if o.id not in organizations]
    reason = "its organization left the collaboration"
    end_open_tasks(session, and_(Task.collaboration_id == id_, Task.init_org_id.in_(organizations)), reason, now)
    end_runs(session, and_(Run.collaboration_id == id_, Run.organization_id.in_(organizations)), reason, now)
    nodes = select(Node.id).where(Node.collaboration_id == id_, Node.organization_id.in_(organizations))
    announce(session, [node_topic(node_id) for node_id in session.scalars(nodes)], now)


def delete_collaboration(
    session: Session, actor: Actor, id_: int, *, dependents: bool, now: datetime
) -> Sequence[Payload]:
    """Gives the payloads whose files the caller removes. Raises NotKnown, PermissionDenied or InvalidRequest."""
    collaboration = _get(session, Collaboration, id_)
    if not actor.may(Resource.COLLABORATION, Operation.DELETE, collaborations=[id_]):
        raise PermissionDenied
    rows = {model: session.scalars(select(model).where(model.collaboration_id == id_)).all() for model in _DEPENDENTS}
    if any(rows.values()) and not dependents:
        names = ", ".join(model.__tablename__ for model, found in rows.items() if found)
        raise InvalidRequest(f'Collaboration {id_} still has: {names}. Set "delete_dependents" to delete them too.')
    payloads = remove_tasks(session, rows.pop(Task), now)  # type: ignore[arg-type]
    for row in [row for found in rows.values() for row in found]:
        session.delete(row)
    session.flush()
    session.delete(collaboration)
    return payloads


_DEPENDENTS: tuple[type[Task | Node | Study], ...] = (Task, Node, Study)


def find_collaboration(session: Session, actor: Actor, id_: int) -> Collaboration:
    """Raises NotKnown or PermissionDenied."""
    collaboration = _get(session, Collaboration, id_)
    mine = [actor.organization_id] if id_ in actor.collaborations else []
    if not actor.may(Resource.COLLABORATION, Operation.VIEW, organizations=mine):
        raise PermissionDenied
    return collaboration


def visible_collaborations(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.COLLABORATION, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    return Collaboration.id.in_(actor.collaborations) if scopes else false()


def editable_collaboration(session: Session, actor: Actor, id_: int, *, widen: bool) -> Collaboration:
    collaboration = _get(session, Collaboration, id_)
    scopes = actor.scopes(Resource.COLLABORATION, Operation.EDIT)
    if Scope.GLOBAL not in scopes and (widen or id_ not in actor.collaborations or not scopes):
        raise PermissionDenied
    return collaboration


def existing_organizations(session: Session, ids: Sequence[int]) -> list[Organization]:
    """Raises InvalidRequest that names those that do not exist."""
    found = list(session.scalars(select(Organization).where(Organization.id.in_(ids)).order_by(Organization.id)))
    missing = sorted(set(ids) - {organization.id for organization in found})
    if missing:
        raise InvalidRequest(f"There is no organization with id {', '.join(map(str, missing))}.")
    return found


def create_study(session: Session, actor: Actor, name: str, collaboration_id: int, ids: Sequence[int]) -> Study:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    collaboration = _get(session, Collaboration, collaboration_id)
    if not actor.may(Resource.STUDY, Operation.CREATE, collaborations=[collaboration_id]):
        raise PermissionDenied
    _refuse_taken(session, Study, name)
    study = Study(name=name, collaboration_id=collaboration_id, organizations=_members(session, collaboration, ids))
    session.add(study)
    session.flush()
    return study


def change_study(
    session: Session, actor: Actor, id_: int, name: str | None, organization_ids: Sequence[int] | None
) -> Study:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    study = _study(session, actor, id_, Operation.EDIT)
    if name is not None and name != study.name:
        _refuse_taken(session, Study, name)
        study.name = name
    if organization_ids is not None:
        study.organizations = _members(session, _get(session, Collaboration, study.collaboration_id), organization_ids)
    return study


def add_to_study(session: Session, actor: Actor, id_: int, organization_id: int) -> Study:
    """Raises NotKnown, PermissionDenied or InvalidRequest."""
    study = _study(session, actor, id_, Operation.EDIT)
    [organization] = _members(session, _get(session, Collaboration, study.collaboration_id), [organization_id])
    if organization not in study.organizations:
        study.organizations.append(organization)
    return study


def remove_from_study(session: Session, actor: Actor, id_: int, organization_id: int) -> Study:
    """Raises NotKnown or PermissionDenied."""
    study = _study(session, actor, id_, Operation.EDIT)
    study.organizations = [o for o in study.organizations if o.id != organization_id]
    return study


def delete_study(session: Session, actor: Actor, id_: int) -> None:
    """Raises NotKnown or PermissionDenied."""
    session.delete(_study(session, actor, id_, Operation.DELETE))


def find_study(session: Session, actor: Actor, id_: int) -> Study:
    """Raises NotKnown or PermissionDenied."""
    return _study(session, actor, id_, Operation.VIEW)


def visible_studies(actor: Actor) -> ColumnElement[bool]:
    scopes = actor.scopes(Resource.STUDY, Operation.VIEW)
    if Scope.GLOBAL in scopes:
        return true()
    reached: list[ColumnElement[bool]] = [false()]
    if Scope.COLLABORATION in scopes:
        reached.append(Study.collaboration_id.in_(actor.collaborations))
    if Scope.ORGANIZATION in scopes:
        mine = study_member.c.organization_id == actor.organization_id
        reached.append(exists().where(study_member.c.study_id == Study.id, mine))
    return or_(*reached)


def _study(session: Session, actor: Actor, id_: int, operation: Operation) -> Study:
    study = _get(session, Study, id_)
    ids = [organization.id for organization in study.organizations]
    if not actor.may(Resource.STUDY, operation, organizations=ids, collaborations=[study.collaboration_id]):
        raise PermissionDenied
    return study


def _members(session: Session, collaboration: Collaboration, ids: Sequence[int]) -> list[Organization]:
    organizations = existing_organizations(session, ids)
    known = set(session.scalars(select(member.c.organization_id).where(member.c.collaboration_id == collaboration.id)))
    outside = [str(id_) for id_ in ids if id_ not in known]
    if outside:
        raise InvalidRequest(f"Organization(s) {', '.join(outside)} are not in collaboration {collaboration.id}.")
    return organizations


_Row = TypeVar("_Row", Collaboration, Study)


def _get(session: Session, model: type[_Row], id_: int) -> _Row:
    row = session.get(model, id_)
    if row is None:
        raise NotKnown(model.__tablename__, id_)
    return row


def _refuse_taken(session: Session, model: type[Collaboration | Study], name: str) -> None:
    if session.scalar(select(model.id).where(model.name == name)) is not None:
        raise InvalidRequest(f'A {model.__tablename__} with the name "{name}" already exists!')
