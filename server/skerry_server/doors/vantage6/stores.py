"""Algorithm stores (contract, section 2.11)."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field, model_validator
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from skerry_server import tokens, webcalls
from skerry_server.doors.fields import Body, Id, Name, Text
from skerry_server.doors.handling import (
    Call,
    Reply,
    answered,
    calls,
    current_server,
    declaring,
    once,
    open_actor,
    parse_body,
    present,
    respond,
)
from skerry_server.doors.vantage6 import answers
from skerry_server.doors.vantage6.paging import Listing, each, like, named, paged
from skerry_server.doors.vantage6.shapes import one
from skerry_server.errors import InvalidRequest
from skerry_server.models import AlgorithmStore, Collaboration
from skerry_server.policy import Actor, Kind
from skerry_server.services import collaborations, login, stores

SORTS = named(AlgorithmStore.id, AlgorithmStore.name, AlgorithmStore.url)


def _only(value: Any) -> Any:
    """Published clients send the id in a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


OneId = Annotated[Id, BeforeValidator(_only)]


class StoreQuery(Listing):
    name: str | None = None
    url: str | None = None
    collaboration_id: Id | None = None


class NewStore(Body):
    """``force`` says that a store in a private network is meant; whether it may be one is the owner's to say."""

    name: Name
    algorithm_store_url: Annotated[Text, Field(min_length=1, max_length=512)]
    server_url: Annotated[Text, Field(max_length=512)] | None = None
    collaboration_id: OneId | None = None
    force: bool = False


class StoreChange(Body):
    """A ``collaboration_id`` of null is for all collaborations."""

    name: Name | None = None
    collaboration_id: OneId | None = None
    everywhere: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        everywhere = {"everywhere": True} if value.get("collaboration_id", 0) is None else {}
        return {key: part for key, part in value.items() if part is not None} | everywhere


@calls(Kind.USER, query=StoreQuery, answer=answers.Page[answers.Store])
def list_stores(call: Call, query: StoreQuery) -> Reply:
    statement = select(AlgorithmStore).where(stores.visible_stores(call.actor))
    if query.name is not None:
        statement = statement.where(like(AlgorithmStore.name, query.name))
    if query.url is not None:
        statement = statement.where(like(AlgorithmStore.url, query.url))
    if query.collaboration_id is not None:
        collaborations.find_collaboration(call.session, call.actor, query.collaboration_id)
        linked = AlgorithmStore.collaborations.any(Collaboration.id == query.collaboration_id)
        statement = statement.where(or_(AlgorithmStore.everywhere, linked))
    return paged(call, statement, query, each(show), sorts=SORTS, default=AlgorithmStore.id.asc())


@declaring(Kind.USER, body=NewStore, answer=answers.Store)
def create() -> Response:
    """The store is asked between two transactions, and only for those who may link it.

    Of a server that is not on its list a store serves nobody; it asks that server who wants it there.
    """
    kind, claims = present(Kind.USER)
    body, server = parse_body(NewStore), current_server()
    with server.database.reading() as session:
        call = Call(server, session, server.clock(), open_actor(session, kind, claims))
        earlier = answered(call, [body])
        if earlier is not None:
            return respond(earlier)
        stores.check_may_link(session, call.actor, body.collaboration_id)
        introduction = introduce(session, call.actor, body.server_url)
    url = body.algorithm_store_url.rstrip("/")
    address = webcalls.check(url, server.settings.stores.allowed)
    if address.inside and not body.force:
        raise InvalidRequest('The store\'s URL leads to a private network: set "force" if that is what you mean.')
    webcalls.ask(address, "version")
    if introduction is not None:
        webcalls.register(address, introduction, force=body.force)

    def transaction() -> object:
        with server.database.writing() as session:
            call = Call(server, session, server.clock(), open_actor(session, kind, claims))
            return once(call, [body], lambda: _link(call, body, url))

    return respond(server.database.repeating(transaction))


def _link(call: Call, body: NewStore, url: str) -> Reply:
    store = stores.register_store(call.session, call.actor, body.name, url, body.collaboration_id)
    return Reply(show(call, store), 201)


@calls(Kind.USER, Kind.NODE, answer=answers.Store)
def get(call: Call, id_: int) -> dict[str, Any]:
    return show(call, stores.find_store(call.session, call.actor, id_))


@calls(Kind.USER, body=StoreChange, answer=answers.Store)
def change(call: Call, id_: int, body: StoreChange) -> dict[str, Any]:
    store = stores.change_store(
        call.session, call.actor, id_, body.name, body.collaboration_id, everywhere=body.everywhere
    )
    return show(call, store)


@calls(Kind.USER, answer=answers.Message)
def delete(call: Call, id_: int) -> dict[str, Any]:
    stores.delete_store(call.session, call.actor, id_)
    return {"msg": f"Algorithm store id={id_} successfully deleted"}


def introduce(session: Session, actor: Actor, server_url: str | None) -> webcalls.Introduction | None:
    """Only the caller knows at which address a store finds this server; without it the store is asked by nobody."""
    if server_url is None:
        return None
    return webcalls.Introduction(server_url.rstrip("/"), tokens.for_store(login.user_by_id(session, actor.id)))


def register(door: Blueprint) -> None:
    door.get("/algorithmstore", endpoint="stores")(list_stores)
    door.post("/algorithmstore", endpoint="store_create")(create)
    door.get("/algorithmstore/<id:id_>", endpoint="store")(get)
    door.patch("/algorithmstore/<id:id_>", endpoint="store_change")(change)
    door.delete("/algorithmstore/<id:id_>", endpoint="store_delete")(delete)


def show(call: Call, store: AlgorithmStore) -> dict[str, Any]:
    linked = [one(call, "collaboration", collaboration.id) for collaboration in store.collaborations]
    return {"id": store.id, "name": store.name, "url": store.url, "collaborations": linked}
