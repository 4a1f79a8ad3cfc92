"""What a node or a run reports about a run, and the payloads as streams of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from skerry.wire import Format, Status
from skerry_server import tokens
from skerry_server.doors.fields import Body, Query, Text
from skerry_server.doors.handling import Call, calls, current_server, open_actor, parse_query, present, stream_body
from skerry_server.errors import InvalidRequest, NotKnown
from skerry_server.models import Payload
from skerry_server.policy import Kind
from skerry_server.services import runs

_HEADER_BYTES = (1 << 20) + 8
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


class LogBody(Body):
    attempt: Attempt
    log: Annotated[Text, Field(max_length=LIVE_LOG)]


class FinishBody(Body):
    attempt: Attempt
    status: Status
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
    return _stream(call, run.input)


@calls(Kind.RUN, Kind.USER)
def read_result(call: Call, id_: int) -> Response:
    run = runs.find_result(call.session, call.actor, id_)
    if run.result is None:
        raise NotKnown("result of a run", id_)
    runs.check_kept(run)
    return _stream(call, run.result)


def stage_result(id_: int) -> Response:
    """PUT of a result as it is stored: read in constant memory, with no transaction open meanwhile."""
    kind, claims = present(Kind.RUN, Kind.NODE)
    attempt = parse_query(AttemptQuery).attempt
    server = current_server()
    with server.database.reading() as session:
        run = runs.held_run(session, open_actor(session, kind, claims, ended=True), id_, attempt)
        format_ = run.task.format
    body = _ascii(stream_body()) if format_ is Format.VANTAGE6 else stream_body()
    pieces = _looked_at(body, lambda start: runs.check_sealed(run, start, "result"))
    payload = server.payloads.keep(pieces, server.settings.limits.result_bytes)
    try:
        with server.database.writing() as session:
            actor = open_actor(session, kind, claims, ended=True)
            replaced = runs.stage_result(session, actor, id_, attempt, payload)
    except BaseException:
        server.payloads.forget(payload)
        raise
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
    door.put("/run/<id:id_>/result")(stage_result)
    door.post("/run/<id:id_>/finish")(finish)


def _stream(call: Call, payload: Payload) -> Response:
    headers = {"Content-Length": str(payload.size)}
    return Response(call.server.payloads.read(payload), mimetype="application/octet-stream", headers=headers)


def _looked_at(pieces: Iterator[bytes], look: Callable[[bytes], None]) -> Iterator[bytes]:
    """Hands a stream on once ``look`` has seen as much of its beginning as a header may take."""
    head = bytearray()
    for piece in pieces:
        head += piece
        if len(head) >= _HEADER_BYTES:
            break
    look(bytes(head))
    yield bytes(head)
    yield from pieces


def _ascii(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What is stored under vantage6's format is text. Raises InvalidRequest for anything else."""
    for piece in pieces:
        if not piece.isascii():
            raise InvalidRequest("The result is not an encrypted text of vantage6's format.")
        yield piece
