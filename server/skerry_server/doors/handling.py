"""What all doors do alike: who calls, one transaction, one service call, one answer, one map of errors."""

from __future__ import annotations

import errno
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

from flask import Flask, Response, current_app, g, jsonify, request
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from skerry import logs
from skerry.audit import What
from skerry.errors import NotRecorded
from skerry_server import addresses, tokens
from skerry_server.bridge import Stream
from skerry_server.database import is_full
from skerry_server.doors.fields import NO_NUL
from skerry_server.doors.rendering import render
from skerry_server.errors import (
    Busy,
    Conflicting,
    Damaged,
    InvalidRequest,
    LetterTokenRefused,
    LoginFailed,
    NotKnown,
    NotOffered,
    PermissionDenied,
    Refused,
    Removed,
    RunOver,
    StaleAttempt,
    StoreNotLinked,
    TooLarge,
    TooManyFailures,
    UnknownKey,
)
from skerry_server.events import Ticket
from skerry_server.models import Payload
from skerry_server.policy import Actor, Kind
from skerry_server.server import Server
from skerry_server.services import failures, repeats
from skerry_server.services.actors import load_actor
from skerry_server.trail import NOBODY, act_as, actor_of, note
from skerry_server.waiting import TICKET_HEADER, WAIT_HEADER, ClientGone

_LOG = logging.getLogger(__name__)
_EXTENSION = "skerry"
BODY_LIMIT = 1 << 20
_PIECE = 1024 * 1024
_STATUS: Mapping[type[Refused], int] = {
    InvalidRequest: 400,
    LoginFailed: 401,
    PermissionDenied: 401,
    StoreNotLinked: 403,
    RunOver: 403,
    NotKnown: 404,
    NotOffered: 404,
    Conflicting: 409,
    Removed: 410,
    Damaged: 410,
    TooLarge: 413,
    TooManyFailures: 429,
    Busy: 503,
}
_DATABASE_AWAY = "The server's database can't be used at the moment: try again in a few seconds."
_FULL = "The server's disk is full, and nothing of this request was done: its administrator must make room; try again."
_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_KEPT = (StaleAttempt, RunOver, PermissionDenied, UnknownKey)
_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON answer."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """An answer that says nothing new: it may be held back until a topic of the ticket changed or the time is up."""

    body: Any
    ticket: Ticket
    seconds: float


@dataclass(frozen=True, slots=True)
class Declared:
    """What a view says of itself: whose tokens it takes (none: it asks for none), what it parses and answers."""

    kinds: tuple[Kind, ...] = ()
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: Any = Any


@dataclass(slots=True)
class Call:
    """One request with its transaction. ``after`` runs once the transaction is committed."""

    server: Server
    session: Session
    now: datetime
    _actor: Actor | None = None
    after: list[Callable[[], object]] = field(default_factory=list)

    @property
    def actor(self) -> Actor:
        if self._actor is None:
            raise LoginFailed("Missing Authorization Header")
        return self._actor

    @property
    def caller(self) -> str:
        """Whose the key of a repeated request is: the actor's label; all who need no token are one."""
        return NOBODY.kind if self._actor is None else self._actor.label

    def forget(self, payloads: Sequence[Payload]) -> None:
        """Removes the files of deleted payloads once the deletion is committed."""
        self.after.extend(functools.partial(self.server.payloads.forget, payload) for payload in payloads)

    def look_anew(self) -> None:
        """Ends the snapshot of a reading transaction, so that what comes next is newer than the ticket just taken."""
        self.session.rollback()

    def link(self, path: str) -> str:
        return f"{self.server.settings.api_path}/{path}"


def install(app: Flask, server: Server) -> None:
    """Hands the server to the handlers and maps every error to a JSON body with a string ``msg``."""
    app.extensions[_EXTENSION] = server
    app.before_request(_bind_logs)
    app.teardown_request(_unbind_logs)
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(NotRecorded, _not_recorded)
    app.register_error_handler(IntegrityError, _collision)
    app.register_error_handler(DataError, _not_kept)
    app.register_error_handler(OperationalError, _away)
    app.register_error_handler(PoolTimeout, _away)
    app.register_error_handler(OSError, _no_room)
    app.register_error_handler(ClientGone, _gone)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def _bind_logs() -> None:
    """Whatever this request logs says which run or task it is about."""
    parts, id_ = request.path.split("/"), (request.view_args or {}).get("id_")
    kind = next((kind for kind in ("run", "task") if kind in parts), None)
    if kind is not None and isinstance(id_, int):
        g.about = logs.bound(**{kind: id_})
        g.about.__enter__()


def _unbind_logs(_error: BaseException | None) -> None:
    if "about" in g:
        g.about.__exit__(None, None, None)


def current_server() -> Server:
    return cast("Server", current_app.extensions[_EXTENSION])


def calls(
    *kinds: Kind,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    answer: Any = Any,
    limit: int = BODY_LIMIT,
    ended: bool = False,
) -> Callable[[Callable[..., object]], Callable[..., Response]]:
    """Makes a function of a call a view: for these kinds of token (none: for everybody), in one transaction.

    GET reads, all else writes. The body is read and parsed before the transaction begins. ``ended``: a run that has
    ended may still make this call.
    """

    def decorate(handler: Callable[..., object]) -> Callable[..., Response]:
        @functools.wraps(handler)
        def view(**arguments: Any) -> Response:
            claims = present(*kinds) if kinds else None
            if body is not None:
                arguments["body"] = parse_body(body, limit)
            if query is not None:
                arguments["query"] = parse_query(query)
            return _answer(handler, claims, arguments, ended=ended)

        return declaring(*kinds, body=body, query=query, answer=answer)(view)

    return decorate


_View = TypeVar("_View", bound=Callable[..., Any])


def declaring(
    *kinds: Kind, body: type[BaseModel] | None = None, query: type[BaseModel] | None = None, answer: Any = Any
) -> Callable[[_View], _View]:
    """Notes for the door's description what a view takes and answers; ``calls`` does so by itself."""

    def note(view: _View) -> _View:
        view.declared = Declared(kinds, body, query, answer)  # type: ignore[attr-defined]
        return view

    return note


def declared(view: Callable[..., Any]) -> Declared:
    """What was noted."""
    return cast("Declared", getattr(view, "declared", Declared()))


def proving(view: _View) -> _View:
    """For a view that takes a password, a code, a key or a token of a letter: a wrong one is counted.

    The count is of the caller's address and lies in the database; where it is too high, TooManyFailures is raised
    before anything is looked at.
    """

    @functools.wraps(view)
    def counted(**arguments: Any) -> Any:
        server, address = current_server(), caller_address()
        with server.database.reading() as session:
            failures.check(session, address, server.settings.limits.failures, server.clock())
        try:
            return view(**arguments)
        except (LoginFailed, LetterTokenRefused):
            with server.database.writing() as session:
                failures.note(session, address, server.clock())
            raise

    return cast("_View", counted)


def caller_address() -> str:
    """Where the request comes from, as far as it can be believed."""
    forwarded = request.headers.getlist("X-Forwarded-For")
    return addresses.of_caller(request.remote_addr, forwarded, current_server().settings.trusted_proxies)


def present(*kinds: Kind, store: bool = False) -> tuple[Kind, dict[str, Any]]:
    """The token of the request, or with ``store`` a store's. Raises PermissionDenied when its kind is none of these."""
    kind, claims = tokens.presented(store=store)
    if kind not in kinds:
        raise PermissionDenied(f"A {kind} can't call this; it is for: {', '.join(kinds)}.")
    return kind, claims


def parse_body(model: type[_Body], limit: int = BODY_LIMIT) -> _Body:
    """Raises InvalidRequest that names the field, or TooLarge."""
    raw = read_body(limit)
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise _incorrect(error) from error


def read_body(limit: int) -> bytes:
    """Piece by piece: reading a large one at once would make more copies. Raises TooLarge."""
    if (request.content_length or 0) > limit:
        raise TooLarge(f"The body of this request must not exceed {limit} bytes.")
    raw = bytearray()
    for piece in _pieces():
        raw += piece
        if len(raw) > limit:
            raise TooLarge(f"The body of this request must not exceed {limit} bytes.")
    return bytes(raw)


def stream_body() -> Iterator[bytes]:
    """The body piece by piece. Raises InvalidRequest when it is shorter than announced."""
    size = 0
    for piece in _pieces():
        size += len(piece)
        yield piece
    if request.content_length is not None and size != request.content_length:
        raise InvalidRequest("The upload was cut off.")


def _pieces() -> Iterator[bytes]:
    """What the request's body is made of, as the bridge has it: each reading by size would copy all of it again."""
    body = request.environ["wsgi.input"]
    return body.pieces() if isinstance(body, Stream) else iter(functools.partial(request.stream.read, _PIECE), b"")


def stream_ascii() -> Iterator[bytes]:
    """The same for what is text when it is stored. Raises InvalidRequest for anything else, too."""
    for piece in stream_body():
        if not piece.isascii():
            raise InvalidRequest("The payload is not an encrypted text of vantage6's format.")
        yield piece


def parse_query(model: type[_Body]) -> _Body:
    """The arguments of the address that the model knows; empty ones count as absent. Raises InvalidRequest."""
    given: dict[str, Any] = {}
    asked = request.args
    for key, is_list in _arguments(model).items():
        values = [value for value in asked.getlist(key) if value] if key in asked else []
        if any("\0" in value for value in values):
            raise InvalidRequest(f"Query is incorrect: {key}: {NO_NUL}", {key: [NO_NUL]})
        if values:
            given[key] = values if is_list else values[-1]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _incorrect(error, "Query is incorrect") from error


@functools.cache
def _arguments(model: type[BaseModel]) -> Mapping[str, bool]:
    """What the model knows, and whether each may come several times."""
    return {info.alias or name: "list" in str(info.annotation) for name, info in model.model_fields.items()}


def _answer(
    handler: Callable[..., object],
    claims: tuple[Kind, dict[str, Any]] | None,
    arguments: dict[str, Any],
    *,
    ended: bool,
) -> Response:
    server = current_server()
    reads = request.method in {"GET", "HEAD"}

    def transaction() -> tuple[object, Call]:
        with (server.database.reading if reads else server.database.writing)() as session:
            call = Call(server, session, server.clock())
            act_as(session, NOBODY)
            if claims is not None:
                call._actor = open_actor(session, *claims, ended=ended)  # noqa: SLF001 - its maker
            act = functools.partial(handler, call, **arguments)
            creates = request.method == "POST" and claims is not None
            return (once(call, list(arguments.values()), act) if creates else act()), call

    answer, call = server.database.repeating(transaction)
    for action in call.after:
        action()
    return respond(answer)


def once(call: Call, said: Sequence[object], act: Callable[[], object]) -> object:
    """What acting answers; of a request that carries a key: what was answered when its caller sent the key first.

    What is ``said`` makes it this request and no other.
    """
    asked = _asked(call, said)
    if asked is None:
        return act()
    earlier = repeats.recall(call.session, asked)
    if earlier is not None:
        return Reply(*earlier)
    answer = act()
    if isinstance(answer, Wait | Response):
        return answer
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    repeats.remember(call.session, asked, json.loads(current_app.json.dumps(reply.body)), reply.status, call.now)
    return reply


def answered(call: Call, said: Sequence[object]) -> Reply | None:
    """What ``once`` would answer without acting: for what must not be done twice before the transaction either."""
    asked = _asked(call, said)
    earlier = repeats.recall(call.session, asked) if asked is not None else None
    return Reply(*earlier) if earlier is not None else None


def _asked(call: Call, said: Sequence[object]) -> repeats.Asked | None:
    """None for a request that carries no key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    parts = [part.model_dump() if isinstance(part, BaseModel) else part for part in said]
    whole = json.dumps([request.full_path, parts], default=str, sort_keys=True).encode()
    return repeats.Asked(call.caller, key, whole)


def open_actor(session: Session, kind: Kind, claims: dict[str, Any], *, ended: bool = False) -> Actor:
    """The caller; a run that has ended is none, unless ``ended``. Raises LoginFailed or PermissionDenied."""
    actor = load_actor(session, kind, claims)
    g.who = actor.who
    if actor.run is not None and actor.run.ended and not ended:
        raise PermissionDenied("This run has ended, and with it its token.")
    return actor


def respond(answer: object) -> Response:
    """A Reply, a Wait, a ready response, or something that becomes JSON."""
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, Wait):
        ticket = json.dumps(dict(answer.ticket.counters))
        answer = Reply(answer.body, 200, {WAIT_HEADER: str(answer.seconds), TICKET_HEADER: ticket})
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    response = render(reply.body)
    response.status_code = reply.status
    response.headers.extend(dict(reply.headers))
    return response


def _incorrect(error: ValidationError, what: str = "Request body is incorrect") -> InvalidRequest:
    fields: dict[str, list[str]] = {}
    for one in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in one["loc"]) or "body"
        fields.setdefault(name, []).append(_WORDS.get(one["type"], one["msg"].removeprefix("Value error, ")))
    name, reasons = next(iter(fields.items()))
    return InvalidRequest(f"{what}: {name}: {reasons[0]}", fields)


_WORDS = {"extra_forbidden": "Unknown field.", "missing": "Missing data for required field."}


def _problem(message: str, status: int, /, **more: Any) -> Response:
    response = jsonify({"msg": message, **more})
    response.status_code = status
    return response


def _refused(error: Refused) -> Response:
    """Nothing was done; but that somebody tried what they may not is kept."""
    if isinstance(error, _KEPT) and request.method not in {"GET", "HEAD"}:
        try:
            _record_refusal(error)
        except NotRecorded as broken:
            return _not_recorded(broken)
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    more = {"errors": error.fields} if isinstance(error, InvalidRequest) and error.fields else {}
    return _problem(str(error), status, **more)


def _record_refusal(error: Refused) -> None:
    """Its sentence is our own and names ids only."""
    parts, id_ = request.path.split("/"), (request.view_args or {}).get("id_")
    about = {"run": id_} if "run" in parts else {}
    with current_server().database.writing() as session:
        act_as(session, g.get("who", NOBODY))
        about["organization"] = actor_of(session).organization
        note(session, "call.refuse", What(request.endpoint or "", id_), about, why=str(error), method=request.method)


def _not_recorded(error: NotRecorded) -> Response:
    cause = error.__cause__
    if isinstance(cause, OperationalError) and cause.connection_invalidated:
        return _away(cause)
    _LOG.error("%s %s was refused: %s", request.method, request.path, getattr(cause, "orig", cause))
    return _problem(str(error), 503)


def _collision(_error: IntegrityError) -> Response:
    return _problem("Someone else was first to write what this request depends on: look again, and repeat it.", 409)


def _not_kept(error: DataError) -> Response:
    """PostgreSQL has bounds that the request's schema let pass."""
    _LOG.warning("%s %s: %s", request.method, request.path, error.orig)
    return _problem("A value of this request can't be kept: it is too long, too large, or no text.", 400)


def _away(error: OperationalError | PoolTimeout) -> Response:
    """The database restarts, is full, or is asked for more than it can do: the caller tries again."""
    full = is_full(error)
    return _put_off(_FULL if full else _DATABASE_AWAY, getattr(error, "orig", None) or error)


def _no_room(error: OSError) -> Response:
    """A payload, unlike a row, is written by the server itself."""
    return _put_off(_FULL, error) if error.errno in _FULL_ERRORS else _unexpected(error)


def _put_off(message: str, why: object) -> Response:
    _LOG.error("%s %s was put off: %s", request.method, request.path, why)
    response = _problem(message, 503)
    response.headers["Retry-After"] = "2"
    return response


def _gone(_error: ClientGone) -> Response:
    return _problem("The request was cut off.", 400)


def _http_error(error: HTTPException) -> Response:
    message = error.description or error.name
    more = {"message": message} if isinstance(error, MethodNotAllowed) else {}
    return _problem(message, error.code or 500, **more)


def _unexpected(error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.path, exc_info=error)
    return _problem("An unexpected error occurred on the server!", 500)
