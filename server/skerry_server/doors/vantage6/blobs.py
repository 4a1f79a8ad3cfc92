"""The blob stream: large inputs and results beside their JSON (contract, sections 2.10 and 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from flask import Blueprint, Response

from skerry.wire import Format
from skerry_server import blobforms
from skerry_server.doors.handling import (
    Call,
    Reply,
    calls,
    current_server,
    declaring,
    once,
    open_actor,
    present,
    respond,
    stream_body,
)
from skerry_server.doors.vantage6 import answers
from skerry_server.models import Payload
from skerry_server.policy import Kind
from skerry_server.services import blobs


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.BlobStatus)
def blobstream_status(call: Call) -> dict[str, Any]:
    return {"blob_store_enabled": call.server.settings.blob_store is not None}


@declaring(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.Blob)
def send_blob() -> Response:
    """Written down in constant memory, with no transaction open meanwhile."""
    kind, claims = present(Kind.USER, Kind.NODE, Kind.RUN)
    server = current_server()
    limits = server.settings.limits
    blobs.check_offered(offered=server.settings.blob_store is not None)
    with server.database.reading() as session:
        actor = open_actor(session, kind, claims, ended=True)
        blobs.check_may_upload(actor)
        room = blobs.room(session, actor, limits.waiting_bytes, server.clock())
    digest = hashlib.sha256()
    format_, pieces = blobforms.to_stored(_hashed(stream_body(), digest))
    payload = server.payloads.keep(room.take(pieces), limits.result_bytes)

    def transaction() -> tuple[object, bool]:
        with server.database.writing() as session:
            call = Call(server, session, server.clock(), open_actor(session, kind, claims, ended=True))
            blobs.check_may_upload(call.actor)
            answer = once(call, [digest.hexdigest()], lambda: _keep(call, payload, format_))
            return answer, payload not in session

    try:
        answer, repeated = server.database.repeating(transaction)
    except BaseException:
        server.payloads.forget(payload)
        raise
    if repeated:
        server.payloads.forget(payload)
    return respond(answer)


def _hashed(pieces: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _keep(call: Call, payload: Payload, format_: Format) -> Reply:
    blobs.room(call.session, call.actor, call.server.settings.limits.waiting_bytes, call.now).check(payload.size)
    return Reply({"uuid": blobs.keep_blob(call.session, call.actor, payload, format_, call.now)}, 201)


@calls(Kind.USER, Kind.NODE, Kind.RUN, answer=answers.Octets)
def read_blob(call: Call, name: UUID) -> Response:
    blobs.check_offered(offered=call.server.settings.blob_store is not None)
    payload = blobs.find_blob(call.session, call.actor, name)
    run = blobs.run_of(call.session, payload)
    headers = {"Content-Disposition": f"attachment; filename=result_{run or name}.bin"}
    pieces = blobforms.from_stored(call.server.payloads.read(payload), payload.format or Format.PLAIN)
    return Response(pieces, mimetype="application/octet-stream", headers=headers)


def register(door: Blueprint) -> None:
    door.get("/blobstream/status")(blobstream_status)
    door.post("/blobstream")(send_blob)
    door.get("/blobstream/<uuid:name>")(read_blob)
