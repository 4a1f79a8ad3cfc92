"""What the proxy does for its node: opens inputs, serves gates, seals and delivers results."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from skerry.errors import ContextError, CryptoError, MissingKey
from skerry.keys import Identity
from skerry.peering import Peer, sign_peer
from skerry.pins import Pins
from skerry.trust import parse_link
from skerry.wire import INLINE_LIMIT, Format, from_stored
from skerry_proxy.access import Access, Renewer
from skerry_proxy.children import Children
from skerry_proxy.envelopes import (
    Envelopes,
    NativeProtection,
    Opened,
    PlainProtection,
    Protection,
    Vantage6Protection,
)
from skerry_proxy.fields import Fields
from skerry_proxy.forwarding import Forwarder
from skerry_proxy.gate import Desk, Gate
from skerry_proxy.gate_tokens import mint_gate_token
from skerry_proxy.inputs import InputWriter
from skerry_proxy.keyring import Keyring
from skerry_proxy.ledger import Ledger
from skerry_proxy.logs import shorten
from skerry_proxy.messages import Limits
from skerry_proxy.neighbours import Neighbours
from skerry_proxy.orders import Order
from skerry_proxy.relays import Lead, Relay
from skerry_proxy.runs import Run
from skerry_proxy.settings import Settings
from skerry_proxy.tally import Tally
from skerry_proxy.upstream import Call, Upload, Upstream

_PIECE = 1024 * 1024
_DIGESTED = 512
"""How many of a result's first bytes tell the server which one it is."""


@dataclass(frozen=True, slots=True)
class _Served:
    """All that one run's container reaches."""

    gate: Gate
    access: Access
    relays: tuple[Relay, ...]

    def start(self) -> None:
        self.gate.start()
        for relay in self.relays:
            relay.start()

    def close(self) -> None:
        self.gate.close()
        for relay in self.relays:
            relay.close()

    def listens_on(self, listeners: Sequence[int], relays: Sequence[tuple[Lead, int]]) -> bool:
        return (
            self.gate.listens_on(listeners)
            and [relay.lead for relay in self.relays] == [lead for lead, _ in relays]
            and all(relay.listens_on(listener) for relay, (_, listener) in zip(self.relays, relays, strict=True))
        )


class Office:
    """All of the proxy behind its control socket. Safe for threads.

    Its methods raise skerry's errors, or ValueError for what is malformed. Descriptors stay the caller's.
    """

    def __init__(self, settings: Settings, identity: Identity | None, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._folder = settings.state_folder
        self._upstream = Upstream(settings)
        self._ledger = Ledger(self._folder / "ledger.sqlite3")
        self._pins = Pins(self._folder / "pins.json", require_confirmed=settings.require_confirmed_keys)
        self._identity = identity
        self._keyring = self._make_keyring()
        self._envelopes = Envelopes(self._make_protections())
        self._renewer = Renewer(clock)
        self._served: dict[tuple[int, int], _Served] = {}
        self._neighbours: dict[tuple[int, int], Neighbours] = {}
        self._lock = threading.Lock()
        self._serving = threading.Lock()
        self._large_bodies = threading.Lock()

    def _make_keyring(self) -> Keyring | None:
        settings, identity = self._settings, self._identity
        if identity is None:
            return None
        return Keyring(settings.organization, settings.collaboration, identity, self._pins, self._upstream)

    def _make_protections(self) -> dict[Format, Protection]:
        settings, made = self._settings, dict[Format, Protection]()
        identity, keyring = self._identity, self._keyring
        if identity is not None and keyring is not None:
            made[Format.NATIVE] = NativeProtection(identity, keyring, self._ledger, self._clock)
            made[Format.VANTAGE6] = Vantage6Protection(identity, keyring, self._clock)
        made[Format.PLAIN] = PlainProtection(self._clock)
        return {fmt: protection for fmt, protection in made.items() if fmt in settings.formats}

    def open(self, value: Any, destination: int) -> dict[str, Any]:
        """Opens the input of an order into the descriptor, which is left empty when anything is amiss."""
        order = Order.parse(value)
        self._check_addressee(order)
        protection = self._envelopes.of(order.format)
        with _rewritten(destination) as file, self._stored_input(order) as stored:
            writer = InputWriter(file)
            opened = protection.open_input(order, stored, writer)
            method = writer.finish()
        return _describe_opened(opened, method)

    def serve(self, resume: Any, token: str, listeners: Sequence[int], relays: Sequence[tuple[Lead, int]] = ()) -> str:
        """Opens the gate and the relays of a run on these listeners, in place of those that there were; the gate token.

        Those that listen there already are kept, and the gate gets the new upstream token: to close them would end
        the listeners.
        """
        run = Run.parse(resume)
        with self._serving:
            served = self._served.get(run.key)
            if served is None or not served.listens_on(listeners, relays):
                tally = served.gate.tally if served is not None else Tally()
                return self._open_gate(run, token, listeners, relays, tally)
            served.access.token = token
            self._renewer.add(served.access)
            return mint_gate_token(run)

    def _open_gate(
        self,
        run: Run,
        token: str,
        listeners: Sequence[int],
        relays: Sequence[tuple[Lead, int]],
        tally: Tally,
    ) -> str:
        access = Access(run.id, run.attempt, token, self._upstream)
        gate_token = mint_gate_token(run)
        gate = self._make_gate(run, access, gate_token, [_duplicate(listener) for listener in listeners], tally)
        made = tuple(Relay(run.id, lead, _duplicate(listener), self._folder) for lead, listener in relays)
        self._end_gate(run.key)
        with self._lock:
            self._served[run.key] = served = _Served(gate, access, made)
        self._renewer.add(access)
        served.start()
        return gate_token

    def seal(self, resume: Any, log: str, output: int | None, destination: int | None) -> tuple[int, str]:
        """Seals the output into the destination, and the log; the size of the former and the latter."""
        run = Run.parse(resume)
        protection = self._envelopes.of(run.format)
        sealed_log, size = protection.seal_log(run, shorten(log)), 0
        if output is not None and destination is not None:
            with _rewritten(destination) as file, _reading(output) as plaintext:
                for piece in protection.seal_result(run, _pieces(plaintext)):
                    size += file.write(piece)
        return size, sealed_log

    def deliver(self, resume: Any, token: str, status: str, log: str | None, sealed: int | None) -> str:
        """Ends the run at the server, with its sealed result if there is one; may be repeated. The run's status."""
        run = Run.parse(resume)
        body = {"status": status, "log": log, "result": None, "staged": False}
        if sealed is not None:
            with _reading(sealed) as file:
                body |= self._send_result(run, token, file)
        return self._finish(run, token, body)

    def _finish(self, run: Run, token: str, body: dict[str, Any]) -> str:
        call = Call("POST", f"/skerry/run/{run.id}/finish", token, json={"attempt": run.attempt, **body})
        return Fields(self._upstream.answer(call), "The server's answer").text("status")

    def hand_over(self, resume: Any, token: str, status: str, log: str | None, output: int) -> str:
        """Ends the run at the server, its result sealed on the way: nothing of it is kept. The run's status.

        The upload may outlast the token. When this fails the result is to be sealed into a file, and that delivered.
        """
        run = Run.parse(resume)
        access = Access(run.id, run.attempt, token, self._upstream)
        with self._renewer.renewing(access):
            self._hand_over(run, token, output)
            return self._finish(run, access.token, {"status": status, "log": log, "result": None, "staged": True})

    def _hand_over(self, run: Run, token: str, output: int) -> None:
        with _reading(output) as plaintext:
            sealed = self._envelopes.of(run.format).seal_result(run, _pieces(plaintext))
            start = b""
            while len(start) < _DIGESTED and (piece := next(sealed, None)) is not None:
                start += piece
            self._upstream.upload_stream(_staging(run, start), token, itertools.chain([start], sealed))

    def close_gate(self, run: tuple[int, int]) -> dict[str, Any]:
        """Ends the gate and the relays of a run and attempt, if there are any; what they were asked."""
        with self._lock:
            self._neighbours.pop(run, None)
        return self._end_gate(run)

    def _end_gate(self, run: tuple[int, int]) -> dict[str, Any]:
        with self._lock:
            served = self._served.pop(run, None)
        if served is None:
            return {**Tally().dump(), "relays": []}
        self._renewer.remove(served.access)
        served.close()
        return {**served.gate.tally.dump(), "relays": [relay.tally for relay in served.relays]}

    def list_pins(self) -> list[dict[str, Any]]:
        return [
            {
                "organization_id": pin.keys.organization_id,
                "fingerprint": pin.keys.fingerprint,
                "confirmed": pin.confirmed,
            }
            for pin in self._pins.all()
        ]

    def introduce(self, resume: Any, job: int, said: Fields) -> dict[str, Any]:
        """The organization's word, signed, of how its run is reached over the VPN. Raises MissingKey, ValueError.

        ``job`` is the server's claim; it counts only where no user has signed which job this is.
        """
        run = Run.parse(resume)
        if self._identity is None:
            raise MissingKey("Without the organization's key nobody could tell its runs from others: there is no VPN.")
        statement = sign_peer(
            self._identity,
            {
                "run": run.id,
                "attempt": run.attempt,
                "collaboration": run.collaboration,
                "organization": run.organization,
                "job": name_job(run, job),
                "public_key": said.text("public_key", 64),
                "address": said.text("address", 64),
                "endpoint": said.optional_text("endpoint"),
                "ports": said.objects("ports"),
                "created": int(self._clock()),
            },
        )
        self._neighbours_of(run).introduce(Peer.parse(statement))
        return statement

    def judge(self, resume: Any, token: str, job: int, statements: Sequence[Any]) -> dict[str, Any]:
        """Those of the statements that are of other runs of this job, signed by the organizations that they name."""
        run = Run.parse(resume)
        good, refused = list[Peer](), list[str]()
        for statement in statements:
            try:
                peer = Peer.parse(statement)
                self._check_peer(run, token, name_job(run, job), peer)
                good.append(peer)
            except CryptoError as error:
                refused.append(str(error))
        self._neighbours_of(run).meet(good)
        return {"statements": [peer.wire for peer in good], "refused": refused}

    def _neighbours_of(self, run: Run) -> Neighbours:
        with self._lock:
            return self._neighbours.setdefault(run.key, Neighbours())

    def _check_peer(self, run: Run, token: str, job: str, peer: Peer) -> None:
        if self._keyring is None:
            raise MissingKey("Without keys nobody can tell one run from another.")
        if (peer.collaboration, peer.job) != (run.collaboration, job) or peer.run == run.id:
            raise ContextError(f"Run {peer.run} is of another job than run {run.id}.")
        peer.verify(self._keyring.find(peer.organization, token))

    def close(self) -> None:
        """Closes all gates."""
        for run in list(self._served):
            self.close_gate(run)
        self._renewer.close()
        self._upstream.close()
        self._ledger.close()

    def _check_addressee(self, order: Order) -> None:
        own = self._settings
        if (order.organization, order.node, order.collaboration) != (own.organization, own.node, own.collaboration):
            raise ContextError("The order is for another organization, node or collaboration than this node's.")

    @contextmanager
    def _stored_input(self, order: Order) -> Iterator[Iterable[bytes]]:
        if order.input is not None:
            yield [order.input]
            return
        with self._upstream.download(f"/skerry/run/{order.run}/input", lambda: order.token) as pieces:
            yield pieces

    def _make_gate(self, run: Run, access: Access, gate_token: str, sockets: list[socket.socket], tally: Tally) -> Gate:
        closing = threading.Event()
        forwarder = Forwarder(self._upstream, access, closing)
        children = Children(
            run=run,
            protection=self._envelopes.of(run.format),
            forwarder=forwarder,
            upstream=self._upstream,
            ledger=self._ledger,
            folder=self._folder,
            clock=self._clock,
        )
        desk = Desk(run, gate_token, forwarder, children, self._neighbours_of(run), self._large_bodies, tally)
        return Gate(desk, sockets, closing, Limits(), self._folder)

    def _send_result(self, run: Run, token: str, file: IO[bytes]) -> dict[str, Any]:
        """What the finishing call says of the result: it itself when it is small, else that it was staged."""
        if os.fstat(file.fileno()).st_size <= INLINE_LIMIT:
            return {"result": from_stored(file.read(), run.format)}
        self._upstream.upload(_staging(run, file.read(_DIGESTED)), token, file)
        return {"staged": True}


def _staging(run: Run, start: bytes) -> Upload:
    """Where the result that begins so is put."""
    path, digest = f"/skerry/run/{run.id}", hashlib.sha256(start[:_DIGESTED]).hexdigest()
    return Upload(f"{path}/result", f"{path}/upload", [("attempt", run.attempt), ("of", digest)])


def name_job(run: Run, claimed: int) -> str:
    """The UUID of the job's first task, as its user signed it; where nothing was signed, what the server claims."""
    return parse_link(run.lineage[0]).context.task if run.lineage else f"unsigned-{claimed}"


def _describe_opened(opened: Opened, method: str) -> dict[str, Any]:
    sender, run = opened.sender, opened.run
    return {
        "sender": {
            "organization": sender.organization,
            "user": sender.user,
            "origin": sender.origin,
            "signed": sender.signed,
        },
        "method": method,
        "databases": [str(database.get("label")) for database in run.databases],
        "image": run.image,
        "resume": run.dump(),
    }


@contextmanager
def _rewritten(descriptor: int) -> Iterator[IO[bytes]]:
    """The file behind a descriptor, emptied; and emptied again when what is written there fails."""
    with os.fdopen(os.dup(descriptor), "w+b") as file:
        _empty(file)
        try:
            yield file
            file.flush()
        except BaseException:
            file.flush()
            _empty(file)
            raise


def _duplicate(listener: int) -> socket.socket:
    return socket.socket(fileno=os.dup(listener))


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


@contextmanager
def _reading(descriptor: int) -> Iterator[IO[bytes]]:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        yield file


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
