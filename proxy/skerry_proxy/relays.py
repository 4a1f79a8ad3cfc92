"""Listeners in a run's namespace that lead out of it, each to what the node's owner named and to nothing else.

A forwarder hands every connection to one destination; the egress listener asks by CONNECT which of its destinations
is meant. What goes through is counted and not looked at.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerry_proxy.destinations import Destination, NotPublic, dial, dial_public
from skerry_proxy.fields import Fields
from skerry_proxy.messages import Connection, Gone, Limits, Refusal
from skerry_proxy.pace import Pace
from skerry_proxy.reception import Reception, shut

MOST_RELAYS = 32
MOST_CONNECTIONS = 16
MOST_AT_ONCE, PER_SECOND = 1000, 50.0
"""Connections: what comes faster waits its turn."""
IDLE_SECONDS = 1800.0
_PIECE = 64 * 1024
_LONGEST_NAME = 128
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lead:
    """Where one listener leads: to the one destination of a forwarder, or to those of the egress listener."""

    name: str
    destinations: tuple[Destination, ...]
    egress: bool = False

    def dump(self) -> dict[str, Any]:
        """As it stands in the control protocol."""
        kind = "egress" if self.egress else "forward"
        return {"kind": kind, "name": self.name, "destinations": [str(one) for one in self.destinations]}

    @classmethod
    def parse(cls, value: Any) -> Lead:
        """The inverse of ``dump``; raises ValueError."""
        fields = Fields(value, "The relay")
        egress = fields.choice("kind", ("forward", "egress")) == "egress"
        raw = fields.any("destinations")
        if not isinstance(raw, list) or not all(isinstance(one, str) for one in raw):
            raise ValueError('The relay: the field "destinations" must be a list of texts.')
        if len(raw) != 1 and not egress:
            raise ValueError("The relay: a forwarder has one destination.")
        return cls(fields.text("name", _LONGEST_NAME), tuple(map(Destination.parse, raw)), egress)


@dataclass(slots=True)
class Tally:
    """What went through: connections that were made and refused, bytes that were sent out and that came in."""

    connections: int = 0
    refused: int = 0
    sent: int = 0
    received: int = 0


class Relay:
    """One listener, which it takes over, until it is closed."""

    def __init__(self, run: int, lead: Lead, listener: socket.socket, folder: Path, idle: float = IDLE_SECONDS) -> None:
        self.lead = lead
        self._run = run
        self._folder = folder
        self._idle = idle
        self._tally = Tally()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._pace = Pace(MOST_AT_ONCE, PER_SECOND)
        self._reception = Reception(
            f"relay-{run}-{lead.name}",
            [listener],
            most=MOST_CONNECTIONS,
            serve=self._serve,
            turn_away=self._turn_away,
            closing=self._closing,
        )

    @property
    def tally(self) -> dict[str, Any]:
        """The counts so far, with the name."""
        with self._lock:
            counts = self._tally
            return {
                "name": self.lead.name,
                "connections": counts.connections,
                "refused": counts.refused,
                "sent": counts.sent,
                "received": counts.received,
            }

    def start(self) -> None:
        self._reception.start()

    def listens_on(self, descriptor: int) -> bool:
        return self._reception.listens_on([descriptor])

    def close(self) -> None:
        self._reception.close()

    def _serve(self, near: socket.socket) -> None:
        self._pace.wait(self._closing)
        with near:
            far = self._dial_asked(near) if self.lead.egress else self._dial_only()
            if far is None:
                self._count(refused=1)
                return
            self._count(connections=1)
            with far:
                Junction(near, far, self._idle, self._closing, self._count).run()

    def _dial_only(self) -> socket.socket | None:
        """None where nobody answers; the other side then sees its connection end."""
        [destination] = self.lead.destinations
        try:
            return dial(destination)
        except OSError as error:
            _log.warning("run %d: %s: %s does not answer: %s", self._run, self.lead.name, destination, error)
            return None

    def _dial_asked(self, near: socket.socket) -> socket.socket | None:
        """The destination that a CONNECT names; None when it was refused, and answered so."""
        connection = Connection(near, Limits(), self._folder)
        with _refusing(connection):
            destination = self._choose(connection.read_connect())
            far = _reach(destination)
            _log.info("run %d: %s: a connection to %s", self._run, self.lead.name, destination)
            try:
                connection.accept_connect()
            except Gone:
                far.close()
                return None
            return far
        return None

    def _choose(self, target: str) -> Destination:
        try:
            destination = Destination.parse(target)
        except ValueError as error:
            raise Refusal(400, "The target of the CONNECT must be host:port.", closes=True) from error
        if destination not in self.lead.destinations:
            raise Refusal(403, f"The node's owner does not let algorithms reach {destination}.", closes=True)
        return destination

    def _turn_away(self, near: socket.socket) -> None:
        self._pace.wait(self._closing)
        self._count(refused=1)
        near.close()

    def _count(self, *, connections: int = 0, refused: int = 0, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._tally.connections += connections
            self._tally.refused += refused
            self._tally.sent += sent
            self._tally.received += received


def _reach(destination: Destination) -> socket.socket:
    try:
        return dial_public(destination)
    except NotPublic as error:
        sentence = f"{destination.host} leads into a private network: the owner must name the address itself."
        raise Refusal(403, sentence, closes=True) from error
    except OSError as error:
        raise Refusal(502, f"{destination} can't be reached from the node.", closes=True) from error


@contextlib.contextmanager
def _refusing(connection: Connection) -> Iterator[None]:
    """Answers a refusal; one who has gone gets no answer."""
    try:
        yield
    except Refusal as refusal:
        with contextlib.suppress(Gone):
            connection.refuse(refusal)
            connection.linger()
    except Gone:
        pass


class Junction:
    """Two sockets joined, until both sides have said all, one breaks, both are silent for so long, or ``closing``."""

    def __init__(
        self,
        near: socket.socket,
        far: socket.socket,
        idle: float,
        closing: threading.Event,
        count: Callable[..., None],
    ) -> None:
        self._near = near
        self._far = far
        self._idle = idle
        self._closing = closing
        self._count = count
        self._heard = time.monotonic()

    def run(self) -> None:
        """Returns when both directions have ended."""
        for one in (self._near, self._far):
            one.settimeout(self._idle)
        back = threading.Thread(target=self._copy, args=(self._far, self._near, "received"), daemon=True)
        back.start()
        self._copy(self._near, self._far, "sent")
        back.join()

    def _copy(self, source: socket.socket, target: socket.socket, name: str) -> None:
        try:
            while piece := self._hear(source):
                target.sendall(piece)
                self._count(**{name: len(piece)})
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._break()
        if self._closing.is_set():
            self._break()

    def _hear(self, source: socket.socket) -> bytes:
        """What comes next. Raises TimeoutError when neither side has said anything for so long."""
        while True:
            try:
                piece = source.recv(_PIECE)
            except TimeoutError:
                if time.monotonic() - self._heard >= self._idle:
                    raise
                continue
            self._heard = time.monotonic()
            return piece

    def _break(self) -> None:
        shut(self._near)
        shut(self._far)
