"""To whom a packet is handed on: rules alone, without a socket and without a clock.

A handshake names its addressee, by a code that anybody can compute who knows the addressee's public key; all packets
after it carry the number that the addressee chose in it. So the relay needs nothing of its own in the packets, which
pass unchanged, and it has no key that opens one.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from skerry_server.relay.handshake import (
    COOKIE,
    COOKIE_BYTES,
    INITIATION,
    INITIATION_BYTES,
    KEEPALIVE_BYTES,
    RESPONSE,
    RESPONSE_BYTES,
    TRANSPORT,
    Addressee,
    NotForUs,
    Responder,
    Session,
)

log = logging.getLogger(__name__)

Address = tuple[str, int]

SILENT_SECONDS = 100.0
"""After which a run has gone: it says every 25 seconds that it is there."""
SESSION_SECONDS = 190.0
"""WireGuard's REJECT_AFTER_TIME, and a little: nothing comes in a session that is older."""
MOST_RUNS, MOST_SESSIONS, MOST_WAYS, MOST_HOSTS = 1024, 8192, 65536, 4096
HANDSHAKES, HANDSHAKES_PER_SECOND = 200.0, 50.0
"""Of one host: at once, and in the long run. They cost the most, and anybody may begin one."""


@dataclass(eq=False, slots=True)
class Registered:
    """A run that said where it is."""

    addressee: Addressee
    address: Address
    heard: float


End = Registered | Address


@dataclass(slots=True)
class _Way:
    to: End
    used: float


class Switch:
    """All that the relay knows; each table is bounded, and forgets what was not used for longest."""

    def __init__(self, responder: Responder, new_index: Callable[[], int] = lambda: secrets.randbits(32)) -> None:
        self._responder = responder
        self._new_index = new_index
        self._runs: dict[bytes, Registered] = {}
        self._by_address: dict[Address, Registered] = {}
        self._sessions: OrderedDict[int, tuple[Session, float]] = OrderedDict()
        self._ways: OrderedDict[tuple[End, int], _Way] = OrderedDict()
        self._allowed: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def registered(self) -> int:
        return len(self._runs)

    def take(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        """What is sent now, and where to; None for what is dropped."""
        size, kind = len(packet), packet[:4]
        if kind == _kind(TRANSPORT) and size >= KEEPALIVE_BYTES:
            handed = self._pass_on(packet, source, now)
            if handed is None:
                self._hear(packet, source, now)
            return handed
        if kind == _kind(INITIATION) and size == INITIATION_BYTES:
            return self._begin(packet, source, now)
        if kind == _kind(RESPONSE) and size == RESPONSE_BYTES:
            return self._pass_response_on(packet, source, now)
        if kind == _kind(COOKIE) and size == COOKIE_BYTES:
            return self._pass_on(packet, source, now)
        return None

    def forget(self, now: float) -> None:
        """What has been silent for too long."""
        for run in [run for run in self._runs.values() if now - run.heard > SILENT_SECONDS]:
            self._drop(run)
        while self._sessions and now - next(iter(self._sessions.values()))[1] > SESSION_SECONDS:
            self._sessions.popitem(last=False)
        while self._ways and now - next(iter(self._ways.values())).used > SESSION_SECONDS:
            self._ways.popitem(last=False)

    # --- handshakes --------------------------------------------------------------------------------------

    def _begin(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        if not self._may_shake_hands(source[0], now):
            return None
        if self._responder.me.is_named_by(packet):
            return self._answer(packet, source, now)
        called = next((run for run in self._runs.values() if run.addressee.is_named_by(packet)), None)
        if called is None or not self._remember(called, _number(packet, 4), self._end(source), now):
            return None
        return packet, called.address

    def _answer(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        index = self._new_index()
        try:
            response, session = self._responder.answer(packet, index)
        except NotForUs:
            return None
        self._sessions[index] = session, now
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return response, source

    def _may_shake_hands(self, host: str, now: float) -> bool:
        left, counted = self._allowed.pop(host, (HANDSHAKES, now))
        left = min(left + (now - counted) * HANDSHAKES_PER_SECOND, HANDSHAKES)
        self._allowed[host] = max(left - 1, 0.0), now
        if len(self._allowed) > MOST_HOSTS:
            self._allowed.popitem(last=False)
        return left >= 1

    def _pass_response_on(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        caller, end = self._way(source, _number(packet, 8), now), self._end(source)
        if caller is None or not self._remember(caller, _number(packet, 4), end, now):
            return None
        return packet, _address(caller)

    # --- who is where ------------------------------------------------------------------------------------

    def _hear(self, packet: bytes, source: Address, now: float) -> None:
        """A run's word that it is there: only who knows the secret can say it, and only its own WireGuard."""
        session, _ = self._sessions.get(_number(packet, 4), (None, 0.0))
        if session is None:
            return
        try:
            session.hear(packet)
        except NotForUs:
            return
        run = self._runs.get(session.public_key)
        if run is not None:
            run.heard = now
            self._move(run, source)
        elif len(self._runs) < MOST_RUNS:
            self._move(Registered(Addressee.of(session.public_key), source, now), source)
            log.info("%s:%s can be reached", *source)
        else:
            log.warning("%s:%s is turned away: there are %s runs already", *source, MOST_RUNS)

    def _move(self, run: Registered, source: Address) -> None:
        """It is there now. Who was there before is not: where ports are given again, runs follow each other."""
        before = self._by_address.get(source)
        if before is run:
            return
        if before is not None:
            self._drop(before)
        self._by_address.pop(run.address, None)
        run.address = source
        self._by_address[source] = run
        self._runs[run.addressee.public_key] = run

    def _drop(self, run: Registered) -> None:
        del self._runs[run.addressee.public_key]
        self._by_address.pop(run.address, None)
        log.info("%s:%s has gone", *run.address)

    # --- ways --------------------------------------------------------------------------------------------

    def _pass_on(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        to = self._way(source, _number(packet, 4), now)
        return None if to is None else (packet, _address(to))

    def _way(self, source: Address, index: int, now: float) -> End | None:
        """Where what this source sends to this number goes. It may have registered since it was told the number."""
        for end in (self._end(source), source):
            way = self._ways.get((end, index))
            if way is not None:
                way.used = now
                self._ways.move_to_end((end, index))
                return way.to
        return None

    def _remember(self, sender: End, index: int, to: End, now: float) -> bool:
        """From now on, what ``sender`` sends to this number goes to ``to``; False where it is another's number."""
        way = self._ways.get((sender, index))
        if way is not None and way.to != to and now - way.used < SILENT_SECONDS:
            return False
        self._ways[sender, index] = _Way(to, now)
        self._ways.move_to_end((sender, index))
        if len(self._ways) > MOST_WAYS:
            self._ways.popitem(last=False)
        return True

    def _end(self, source: Address) -> End:
        """A registered run stays itself when its address changes."""
        return self._by_address.get(source, source)


def _address(end: End) -> Address:
    return end.address if isinstance(end, Registered) else end


def _kind(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def _number(packet: bytes, offset: int) -> int:
    return int.from_bytes(packet[offset : offset + 4], "little")
