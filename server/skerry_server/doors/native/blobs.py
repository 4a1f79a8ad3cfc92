"""Inputs that are sent ahead of their task, as they are stored; the sender names them by a UUID."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Blueprint, Response

from skerry_server.doors.handling import (
    Call,
    calls,
    current_server,
    declaring,
    open_actor,
    parse_query,
    present,
    respond,
    stream_body,
)
from skerry_server.doors.native import streams
from skerry_server.policy import Kind
from skerry_server.services import blobs


@calls(Kind.USER, Kind.RUN)
def received(call: Call, name: UUID) -> dict[str, Any]:
    """How much of it has come: from there on an upload that broke off goes on."""
    blobs.check_may_upload(call.actor)
    waiting = blobs.find_waiting(call.session, call.actor, name)
    if waiting is not None:
        return {"received": waiting.size, "complete": True}
    return {"received": call.server.payloads.received(blobs.part_of(call.actor, name)), "complete": False}


@declaring(Kind.USER, Kind.RUN, query=streams.UploadQuery)
def send_blob(name: UUID) -> Response:
    """Written down in constant memory, with no transaction open meanwhile."""
    kind, claims = present(Kind.USER, Kind.RUN)
    span, server = parse_query(streams.UploadQuery).span(), current_server()
    limits = server.settings.limits
    with server.database.reading() as session:
        actor = open_actor(session, kind, claims)
        blobs.check_new(session, actor, name)
        part = blobs.part_of(actor, name)
        room = blobs.room(session, actor, limits.waiting_bytes, server.clock())
    room = room.less(server.payloads.held(part.owner, besides=part) + span.start)
    payload = server.payloads.receive(part, room.take(stream_body()), span, limits.result_bytes)
    if payload is None:
        return Response(status=202)
    with streams.kept(server, payload):
        format_ = blobs.check_form(server.payloads.start(payload, streams.HEADER_BYTES))
        with server.database.writing() as session:
            actor = open_actor(session, kind, claims)
            blobs.check_new(session, actor, name)
            blobs.keep_blob(session, actor, payload, format_, server.clock(), name=name)
    return respond({"uuid": str(name)})


def register(door: Blueprint) -> None:
    door.get("/blob/<uuid:name>")(received)
    door.put("/blob/<uuid:name>")(send_blob)
