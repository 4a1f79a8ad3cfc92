"""A gate: all that one run's container can reach. Its listeners, their connections, and what is done with each call."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skerry.errors import CryptoError, ServerError, ServerUnreachable, SkerryError
from skerry_proxy.children import Children
from skerry_proxy.fields import Fields
from skerry_proxy.forwarding import Forwarder
from skerry_proxy.gate_tokens import is_gate_token
from skerry_proxy.messages import Connection, Gone, Limits, Refusal, Request, Response
from skerry_proxy.neighbours import Neighbours
from skerry_proxy.pace import Pace
from skerry_proxy.reception import Reception
from skerry_proxy.routes import Action, Match, find_route, parse_query
from skerry_proxy.runs import Run
from skerry_proxy.spools import IN_MEMORY, is_full
from skerry_proxy.tally import Tally

MOST_CONNECTIONS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """Answers the calls of one run. Raises Refusal, or an error of skerry's that ``explain`` knows.

    Bodies are parsed in memory, so whoever has a large one waits for ``large_bodies``, which all runs share.
    """

    run: Run
    gate_token: str
    forwarder: Forwarder
    children: Children
    neighbours: Neighbours
    large_bodies: threading.Lock
    tally: Tally

    def answer(self, request: Request) -> Response:
        match = self._admit(request)
        self.tally.count_call(match.route.name)
        response = self._act(match, request)
        _log.info("run %d: %s %d", self.run.id, match.route.name, response.status)
        return response

    def _admit(self, request: Request) -> Match:
        """The call, when it is in the table and shows the run's own token."""
        try:
            match = find_route(request.method, request.path)
        except Refusal:
            self._check_token(request)
            raise
        if not match.route.public:
            self._check_token(request)
        return parse_query(match, request.query)

    def _check_token(self, request: Request) -> None:
        scheme, _, shown = (request.authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not is_gate_token(self.gate_token, shown.strip()):
            raise Refusal(401, "The call does not carry this run's token.")

    def _act(self, match: Match, request: Request) -> Response:  # noqa: C901, PLR0911 - one line for each action
        match match.route.action:
            case Action.FORWARD:
                return Response.of(self.forwarder.get(match))
            case Action.LIST:
                return Response.of(self.forwarder.get_all(match))
            case Action.OWN_NODE:
                return Response.of(self._get_own_node(match))
            case Action.ADDRESSES:
                return Response.of(self.neighbours.keep(self.forwarder.get(match)))
            case Action.GET_RUN:
                return Response.of(self.children.open_log(self.forwarder.get(match)))
            case Action.LIST_RUNS:
                rows = self.forwarder.get_all(match)
                return Response.of({**rows, "data": [self.children.open_log(row) for row in rows["data"]]})
            case Action.GET_RESULT:
                return self.children.get_result(match.require_id())
            case Action.LIST_RESULTS:
                return self.children.list_results(match.require_number("task_id"))
            case Action.CREATE_TASK:
                return self._create_task(request)
            case Action.KEEP_BLOB:
                return Response.of({"uuid": self.children.keep_blob(request)}, 201)

    def _create_task(self, request: Request) -> Response:
        with self.large_bodies if request.size > IN_MEMORY else contextlib.nullcontext():
            created = self.children.create(request.read_json(), request.key)
        self.tally.add_child(Fields(created.task, "The task").identifier("id"))
        return replace(Response.of(created.task, 201), told=functools.partial(self._note_told, created.child))

    def _note_told(self, child: str, whole: bool) -> None:
        if whole:
            self.children.note_answered(child)
        else:
            self.children.leave_open(child)

    def _get_own_node(self, match: Match) -> object:
        if match.number != self.run.node:
            raise Refusal(403, "An algorithm sees its own node only.")
        return self.forwarder.get(match)


def _tell(connection: Connection, response: Response) -> bool:
    """Whether another request may follow. Raises Gone. What is written here reaches the container, whoever dies."""
    whole = False
    try:
        goes_on = connection.write(response)
        whole = True
    finally:
        if response.told is not None:
            response.told(whole)
    return goes_on


def explain(error: SkerryError | ValueError) -> Refusal:
    """What the container is told of an error behind the gate."""
    if isinstance(error, ServerUnreachable):
        return Refusal(503, str(error))
    if isinstance(error, CryptoError):
        return Refusal(502, str(error))
    if isinstance(error, ServerError) and 400 <= error.status < 500:  # noqa: PLR2004
        return Refusal(error.status, str(error))
    return Refusal(502, f"The server's answer can't be used. {error}")


def _explain_full(error: Exception) -> Refusal | None:
    """What the container, which then comes again, is told when there is no room for what it sent or asked for."""
    if not is_full(error):
        return None
    _log.error("the disk is full: %s", error)
    return Refusal(503, "The disk of this node is full: try again in a moment.")


class Gate:
    """Serves one run until it is closed. It takes over the listeners; each connection has a thread, of at most 16."""

    def __init__(
        self, desk: Desk, listeners: Sequence[socket.socket], closing: threading.Event, limits: Limits, folder: Path
    ) -> None:
        self._desk = desk
        self._closing = closing
        self._limits = limits
        self._folder = folder
        self._pace = Pace(limits.at_once, limits.per_second)
        name = f"gate-{desk.run.id}"
        self._reception = Reception(
            name, listeners, most=MOST_CONNECTIONS, serve=self._serve, turn_away=self._turn_away, closing=closing
        )

    @property
    def run(self) -> Run:
        return self._desk.run

    @property
    def tally(self) -> Tally:
        return self._desk.tally

    def start(self) -> None:
        self._reception.start()

    def listens_on(self, descriptors: Sequence[int]) -> bool:
        """Whether these descriptors are of its own listeners, and of nothing else."""
        return self._reception.listens_on(descriptors)

    def close(self) -> None:
        """Ends the listeners and all connections at once; what still waits for the server is dropped."""
        self._reception.close()
        self._desk.children.close()

    def _serve(self, connected: socket.socket) -> None:
        with connected, contextlib.suppress(Gone):
            self._converse(Connection(connected, self._limits, self._folder))

    def _turn_away(self, connected: socket.socket) -> None:
        """Answers 503 without reading."""
        self._pace.wait(self._closing)
        with connected:
            refusal = Refusal(503, f"An algorithm may have {MOST_CONNECTIONS} connections to its gate at a time.")
            with contextlib.suppress(Gone):
                Connection(connected, Limits(), self._folder).refuse(refusal)

    def _converse(self, connection: Connection) -> None:
        while not self._closing.is_set():
            self._pace.wait(self._closing)
            try:
                request = self._read(connection)
            except Refusal as refusal:
                _log.info("run %d: refused a request: %d", self.run.id, refusal.status)
                self.tally.count_refusal(refusal.status)
                connection.refuse(refusal)
                connection.linger()
                return
            with request.body:
                response = self._answer(request)
            if not _tell(connection, response):
                return

    @staticmethod
    def _read(connection: Connection) -> Request:
        """Raises Refusal or Gone."""
        try:
            return connection.read()
        except OSError as error:
            if full := _explain_full(error):
                raise full from error
            raise

    def _answer(self, request: Request) -> Response:
        try:
            return self._desk.answer(request)
        except Refusal as refusal:
            return self._refuse(refusal)
        except (SkerryError, ValueError) as error:
            return self._refuse(explain(error))
        except Exception as error:  # noqa: BLE001 - the top of the loop; the log has the traceback
            if full := _explain_full(error):
                return self._refuse(full)
            _log.exception("run %d: a call failed", self.run.id)
            return self._refuse(Refusal(500, "The gate failed; its log says why."))

    def _refuse(self, refusal: Refusal) -> Response:
        _log.info("run %d: refused a call: %d", self.run.id, refusal.status)
        self.tally.count_refusal(refusal.status)
        return Response.refuse(refusal)
