"""What a node or a run reports about a run, and the payloads as streams of bytes."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from skerry.wire import End, Format, Status
from skerry_server import tokens
from skerry_server.doors.fields import Body, Query, Text
from skerry_server.doors.handling import (
    Call,
    calls,
    current_server,
    open_actor,
    parse_query,
    present,
    stream_ascii,
    stream_body,
)
from skerry_server.doors.native import streams
from skerry_server.errors import Damaged, NotKnown
from skerry_server.models import Payload
from skerry_server.payloads import PayloadStore
from skerry_server.policy import Kind
from skerry_server.services import runs

_FINISH_LIMIT = 16 << 20
LIVE_LOG = 256 * 1024
"""Characters of a log that is shown while its run is active."""
Attempt = Annotated[int, Field(ge=1, lt=2**31)]


class StatusBody(Body):
    attempt: Attempt
    status: Status


class TokenBody(Body):
    attempt: Attempt


class AttemptQuery(Query):
    attempt: Attempt


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""Of the first bytes of a payload: parts of two different ones are never put together."""


class ReceivedQuery(AttemptQuery):
    of: Digest | None = None


class StageQuery(streams.UploadQuery):
    attempt: Attempt
    of: Digest | None = None


class LogBody(Body):
    attempt: Attempt
    log: Annotated[Text, Field(max_length=LIVE_LOG)]


class FinishBody(Body):
    attempt: Attempt
    status: End
    log: Text | None = None
    result: str | None = None
    staged: bool = False


@calls(Kind.NODE, body=StatusBody)
def report_status(call: Call, id_: int, body: StatusBody) -> dict[str, Any]:
    run = runs.report_status(
        call.session, call.actor, id_, body.attempt, body.status, lease=call.server.lease, now=call.now
    )
    return {"status": run.state.shown}


@calls(Kind.NODE, body=LogBody, limit=2 * LIVE_LOG)
def show_log(call: Call, id_: int, body: LogBody) -> dict[str, Any]:
    runs.show_log(call.session, call.actor, id_, body.attempt, body.log, now=call.now)
    return {}


@calls(Kind.NODE, Kind.RUN, body=TokenBody)
def renew_token(call: Call, id_: int, body: TokenBody) -> dict[str, Any]:
    lifetime = call.server.run_token_lifetime
    run = runs.renew_token(call.session, call.actor, id_, body.attempt)
    return {"token": tokens.for_run(run, lifetime), "expires_in": int(lifetime.total_seconds())}


@calls(Kind.NODE, Kind.RUN, Kind.USER)
def read_input(call: Call, id_: int) -> Response:
    runs.check_speaker(call.actor, id_)
    run = runs.find_run(call.session, call.actor, id_)
    runs.check_kept(run)
    return streams.send(call, run.input)


@calls(Kind.RUN, Kind.USER)
def read_result(call: Call, id_: int) -> Response:
    run = runs.find_result(call.session, call.actor, id_)
    runs.check_kept(run)
    if run.result is None:
        raise NotKnown("result of a run", id_)
    return streams.send(call, run.result)


@calls(Kind.RUN, Kind.NODE, query=ReceivedQuery)
def received_result(call: Call, id_: int, query: ReceivedQuery) -> dict[str, Any]:
    """How much of it has come: from there on an upload that broke off goes on."""
    run, store = runs.held_run(call.session, call.actor, id_, query.attempt), call.server.payloads
    if run.staged is not None and run.staged_attempt == query.attempt and _is(run.staged, query.of, store):
        return {"received": run.staged.size, "complete": True}
    return {"received": store.received(runs.part_of(run, query.of)), "complete": False}


def _is(staged: Payload, of: str | None, store: PayloadStore) -> bool:
    """Whether it begins as the digest says; one that is damaged has to come again."""
    try:
        return of in {None, hashlib.sha256(store.start(staged, runs.DIGESTED)).hexdigest()}
    except Damaged:
        return False


def stage_result(id_: int) -> Response:
    """PUT of a result as it is stored: read in constant memory, with no transaction open meanwhile."""
    kind, claims = present(Kind.RUN, Kind.NODE)
    query, server = parse_query(StageQuery), current_server()
    span, attempt = query.span(), query.attempt
    with server.database.reading() as session:
        run = runs.held_run(session, open_actor(session, kind, claims, ended=True), id_, attempt)
        format_, part = run.task.format, runs.part_of(run, query.of)
    body = stream_ascii() if format_ is Format.VANTAGE6 else stream_body()
    server.payloads.drop_others(part)
    payload = server.payloads.receive(part, body, span, server.settings.limits.result_bytes)
    if payload is None:
        return Response(status=202)
    with streams.kept(server, payload):
        runs.check_sealed(run, server.payloads.start(payload, streams.HEADER_BYTES), "result")
        with server.database.writing() as session:
            actor = open_actor(session, kind, claims, ended=True)
            replaced = runs.stage_result(session, actor, id_, attempt, payload)
    if replaced is not None:
        server.payloads.forget(replaced)
    return Response(status=204)


@calls(Kind.RUN, Kind.NODE, body=FinishBody, limit=_FINISH_LIMIT, ended=True)
def finish(call: Call, id_: int, body: FinishBody) -> dict[str, Any]:
    outcome = runs.Outcome(body.attempt, body.status, body.log, body.result, body.staged)
    run, dropped = runs.finish_run(call.session, call.actor, id_, outcome, store=call.server.payloads, now=call.now)
    if dropped is not None:
        call.session.flush()
        call.session.delete(dropped)
        call.forget([dropped])
    return {"status": run.state.shown}


def register(door: Blueprint) -> None:
    door.post("/run/<id:id_>/status")(report_status)
    door.post("/run/<id:id_>/token")(renew_token)
    door.put("/run/<id:id_>/log")(show_log)
    door.get("/run/<id:id_>/input")(read_input)
    door.get("/run/<id:id_>/result")(read_result)
    door.get("/run/<id:id_>/upload")(received_result)
    door.put("/run/<id:id_>/result")(stage_result)
    door.post("/run/<id:id_>/finish")(finish)
