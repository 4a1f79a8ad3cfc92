"""Algorithm stores: which collaborations use which."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select, true, update
from sqlalchemy.orm import Session

from skerry_server.errors import InvalidRequest, NotKnown, PermissionDenied, StoreNotLinked
from skerry_server.models import AlgorithmStore, Collaboration, Task
from skerry_server.policy import Actor, Operation, Resource, Scope


def check_may_link(session: Session, actor: Actor, collaboration_id: int | None) -> None:
    """None means all collaborations, which takes a global rule. Raises NotKnown or PermissionDenied."""
    if collaboration_id is not None and session.get(Collaboration, collaboration_id) is None:
        raise NotKnown("collaboration", collaboration_id)
    here = [collaboration_id] if collaboration_id is not None else []
    if not actor.may(Resource.COLLABORATION, Operation.EDIT, collaborations=here):
        raise PermissionDenied


def register_store(session: Session, actor: Actor, name: str, url: str, collaboration_id: int | None) -> AlgorithmStore:
    """A store that is known already is linked to one more collaboration. Raises NotKnown or PermissionDenied."""
    check_may_link(session, actor, collaboration_id)
    store = session.scalar(select(AlgorithmStore).where(AlgorithmStore.url == url))
    if store is None:
        store = AlgorithmStore(name=name, url=url, everywhere=False)
        session.add(store)
    _link(session, store, collaboration_id)
    session.flush()
    return store


def change_store(
    session: Session, actor: Actor, id_: int, name: str | None, collaboration_id: int | None, *, everywhere: bool
) -> AlgorithmStore:
    """Raises NotKnown or PermissionDenied."""
    store = _editable(session, actor, id_)
    if everywhere or collaboration_id is not None:
        check_may_link(session, actor, collaboration_id)
        _link(session, store, collaboration_id)
    store.name = name or store.name
    return store


def delete_store(session: Session, actor: Actor, id_: int) -> None:
    """Tasks forget where their algorithm came from. Raises NotKnown or PermissionDenied."""
    store = _editable(session, actor, id_)
    session.execute(update(Task).where(Task.store_id == id_).values(store_id=None))
    session.delete(store)


def find_store(session: Session, actor: Actor, id_: int) -> AlgorithmStore:
    """Raises NotKnown or PermissionDenied."""
    store = _get(session, id_)
    if session.scalar(select(AlgorithmStore.id).where(AlgorithmStore.id == id_, visible_stores(actor))) is None:
        raise PermissionDenied
    return store


def store_of_task(session: Session, id_: int, collaboration_id: int) -> AlgorithmStore:
    """Raises InvalidRequest for a store that there is not, StoreNotLinked for one of another collaboration."""
    store = session.get(AlgorithmStore, id_)
    if store is None:
        raise InvalidRequest(f"There is no algorithm store with id {id_}.")
    if not store.everywhere and collaboration_id not in {one.id for one in store.collaborations}:
        raise StoreNotLinked(f"Algorithm store {id_} is not linked to collaboration {collaboration_id}.")
    return store


def visible_stores(actor: Actor) -> ColumnElement[bool]:
    """Everybody sees those that are for all."""
    if Scope.GLOBAL in actor.scopes(Resource.COLLABORATION, Operation.VIEW):
        return true()
    if not actor.scopes(Resource.COLLABORATION, Operation.VIEW):
        return or_(AlgorithmStore.everywhere)
    near = AlgorithmStore.collaborations.any(Collaboration.id.in_(actor.collaborations))
    return or_(AlgorithmStore.everywhere, near)


def _link(session: Session, store: AlgorithmStore, collaboration_id: int | None) -> None:
    if collaboration_id is None:
        store.everywhere, store.collaborations = True, []
        return
    store.everywhere = False
    collaboration = session.get_one(Collaboration, collaboration_id)
    if collaboration not in store.collaborations:
        store.collaborations.append(collaboration)


def _editable(session: Session, actor: Actor, id_: int) -> AlgorithmStore:
    store = _get(session, id_)
    scopes = actor.scopes(Resource.COLLABORATION, Operation.EDIT)
    all_mine = not store.everywhere and all(one.id in actor.collaborations for one in store.collaborations)
    if Scope.GLOBAL not in scopes and not (scopes and all_mine):
        raise PermissionDenied
    return store


def _get(session: Session, id_: int) -> AlgorithmStore:
    store = session.get(AlgorithmStore, id_)
    if store is None:
        raise NotKnown("algorithm store", id_)
    return store
