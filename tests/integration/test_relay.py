"""A relay in front of real WireGuard interfaces: who is reached through it, and who is not."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tunnelends import PORT, SUBNET, End, join

from skerry.keys import Identity, write_secret
from skerry.peering import Peer, sign_peer
from skerry.wire import b64, unb64
from skerry_node import namespace, vpn
from skerry_node.config import RelaySettings, VpnSettings
from skerry_node.launchers.launcher import Attempt
from skerry_node.vpn import Place, Tunnels
from skerry_server.relay.cli import carry, open_keys
from skerry_server.relay.handshake import Responder
from skerry_server.relay.switch import Address, Switch

pytestmark = pytest.mark.integration
BRIEF = 1.5


@pytest.fixture(autouse=True)
def _able(vpn_machine: None) -> None:
    """WireGuard and nftables are here."""


class Listening(Switch):
    """Keeps what it hands on."""

    def __init__(self, responder: Responder) -> None:
        super().__init__(responder)
        self.handed: list[bytes] = []

    def take(self, packet: bytes, source: Address, now: float) -> tuple[bytes, Address] | None:
        found = super().take(packet, source, now)
        if found is not None:
            self.handed.append(found[0])
        return found


class Stopped(Exception):
    pass


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[tuple[RelaySettings, Listening]]:
    private, secret = open_keys(tmp_path / "relay")
    responder = Responder(private, secret)
    switch, ended = Listening(responder), threading.Event()

    def clock() -> float:
        if ended.is_set():
            raise Stopped
        return time.monotonic()

    def work() -> None:
        with contextlib.suppress(Stopped):
            carry(line, switch, clock)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=work)
        thread.start()
        settings = RelaySettings(
            endpoint=line.getsockname(),
            public_key=b64(responder.me.public_key),
            secret_file=tmp_path / "relay/relay-secret",
        )
        yield settings, switch
        ended.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", line.getsockname())
        thread.join()


@pytest.fixture
def end(relay: tuple[RelaySettings, Listening]) -> Iterator[Callable[[int, VpnSettings], End]]:
    made: list[tuple[End, Tunnels]] = []
    identity = Identity.generate()

    def make(number: int, settings: VpnSettings) -> End:
        space, tunnels = namespace.make_empty(), Tunnels(settings, f"relay{number}")
        place = Place(os.dup(space), SUBNET[number], SUBNET, {PORT: "ring"})
        one = End(number, space, tunnels.open(Attempt(number, 1), place), identity)
        made.append((one, tunnels))
        return one

    yield make
    for one, tunnels in made:
        tunnels.close(Attempt(one.number, 1))
        for listener in one.listeners:
            listener.close()
        os.close(one.namespace)


def behind(settings: RelaySettings) -> VpnSettings:
    return VpnSettings(relay=settings, ports=(42200, 42219))


def test_two_that_nobody_can_call(relay, end) -> None:
    """All that passes is WireGuard's, and as it was sent."""
    settings, switch = relay
    one, other = end(1, behind(settings)), end(2, behind(settings))
    join(one, other)
    for listener, caller in ((one, other), (other, one)):
        listener.listen(PORT)
        assert caller.call(listener.address, PORT)
    assert {packet[0] for packet in switch.handed} == {1, 2, 4}


def test_one_that_can_be_called_without_a_relay_of_its_own(relay, end) -> None:
    settings, _ = relay
    hidden = end(1, behind(settings))
    open_ = end(2, VpnSettings(endpoint="127.0.0.1", ports=(42220, 42229)))
    hidden.listen(PORT)
    # The hidden one knows it, but not where it is: all must come by the relay.
    open_.tunnel.admit([hidden.peer()], "v")
    hidden.tunnel.admit([without_endpoint(open_)], "v")
    assert open_.call(hidden.address, PORT)


def without_endpoint(one: End) -> Peer:
    body = {name: part for name, part in one.peer().wire.items() if name not in {"signature", "v"}}
    return Peer.parse(sign_peer(one.identity, {**body, "endpoint": None}))


def test_without_the_secret_nobody_is_reached(relay, end, tmp_path: Path) -> None:
    settings, switch = relay
    wrong = tmp_path / "wrong"
    write_secret(wrong, b64(bytes(32)).encode())
    hidden = end(1, behind(settings.model_copy(update={"secret_file": wrong})))
    open_ = end(2, VpnSettings(endpoint="127.0.0.1", ports=(42220, 42229)))
    hidden.listen(PORT)
    open_.tunnel.admit([hidden.peer()], "v")
    assert not open_.call(hidden.address, PORT, BRIEF)
    assert switch.registered == 0


def test_a_peer_can_not_pass_for_the_relay(relay, end) -> None:
    """Whoever signs the relay's key as a run's own is not let in, and the relay stays what it is."""
    settings, _ = relay
    one, other = end(1, behind(settings)), end(2, behind(settings))
    join(one, other)
    liar = replace(other.peer(), public_key=unb64(settings.public_key), address=SUBNET[9])
    one.tunnel.admit([other.peer(), liar], "w")
    one.listen(PORT)
    assert other.call(one.address, PORT)
    assert one.tunnel.meets_relay()


def test_the_machine_says_whether_the_relay_answers(relay, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = relay
    assert vpn.missing(behind(settings)) is None
    monkeypatch.setattr(vpn, "_RELAY_SECONDS", 0.5)
    other = settings.model_copy(update={"public_key": b64(bytes(32))})
    assert "does not answer" in (vpn.missing(behind(other)) or "")
