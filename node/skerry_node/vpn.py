"""The VPN of a node's runs: one WireGuard interface for each run that may have one, and who is let through it."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skerry.peering import Peer
from skerry.wire import b64
from skerry_node import firewall, namespace
from skerry_node.config import RelaySettings, VpnSettings, parse_key
from skerry_node.launchers.launcher import Attempt, Image, LauncherError
from skerry_node.wireguard import Driver, Interface, Remote
from skerry_node.wireguard_go import GoDriver
from skerry_node.wireguard_kernel import KernelDriver

log = logging.getLogger(__name__)

_DRAIN_SECONDS, _GLANCE_SECONDS = 10.0, 0.02
_RELAY_SECONDS = 12.0
"""Time for two handshakes of WireGuard's, which come every 5 seconds."""
_TURN_SECONDS = 0.25
"""Of two that hear of each other the one that was there calls first: calls that cross end both, for 5 seconds."""
_ENDING = frozenset({"04", "09", "0B"})
"""FIN_WAIT1, LAST_ACK and CLOSING, as the kernel's include/net/tcp_states.h numbers them."""
_LABEL = re.compile(r"p([0-9]{1,5})")


@functools.cache
def choose_driver() -> Driver:
    """The kernel's WireGuard where it has one: fewer copies, no process. It does not come or go while a node runs."""
    kernel = KernelDriver()
    return GoDriver() if kernel.missing() else kernel


def missing(settings: VpnSettings | None = None) -> str | None:
    """Why this machine can't have a VPN, in one sentence; None when it can. With a relay, whether that answers."""
    reason = choose_driver().missing() or firewall.missing()
    if reason is not None:
        return reason
    try:
        _try_out(settings or VpnSettings())
    except LauncherError as error:
        return str(error)
    return None


def declared_ports(image: Image) -> dict[int, str | None]:
    """What an image declares: EXPOSE, and LABEL p<port>=<label>. Without any it takes no part in a VPN."""
    named = {int(found[1]): label for name, label in image.labels.items() if (found := _LABEL.fullmatch(name))}
    return {port: named.get(port) or None for port in sorted({*image.ports, *named}) if 0 < port < 1 << 16}


def _try_out(settings: VpnSettings) -> None:
    """An interface behind closed doors, in a namespace of its own; both are gone afterwards."""
    network = ipaddress.IPv4Network("198.18.0.0/30")
    place = Place(namespace.make_empty(), network[1], network, {})
    tunnel = Tunnel(f"sk{secrets.token_hex(6)}", place, settings, 0)
    try:
        if settings.relay is not None and not tunnel.meets_relay():
            raise LauncherError(
                f"the relay at {_join(*settings.relay.endpoint)} does not answer: does it run, are its public_key and "
                "secret_file these, and does the firewall let UDP out to it?"
            )
    finally:
        tunnel.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's interface goes, and what it is to have there. ``namespace`` is a descriptor, the tunnel's own."""

    namespace: int
    address: ipaddress.IPv4Address
    subnet: ipaddress.IPv4Network
    ports: Mapping[int, str | None]


def place(namespace_: int, address: str, subnet: str, ports: Mapping[int, str | None]) -> Place:
    """From the server's claim, which must make sense. Raises LauncherError; the descriptor is closed then."""
    try:
        made = Place(namespace_, ipaddress.IPv4Address(address), ipaddress.IPv4Network(subnet), ports)
    except ValueError:
        made = None
    if made is None or made.address not in made.subnet or not made.subnet.is_private or made.subnet.is_loopback:
        os.close(namespace_)
        raise LauncherError(f"The server gave the run the address {address} of {subnet}, which is none of a VPN.")
    return made


class Tunnel:
    """One run's interface. Safe for threads; ``close`` may come at any time. Its methods raise LauncherError."""

    def __init__(self, name: str, place: Place, settings: VpnSettings, udp_port: int) -> None:
        self._name, self._place, self._settings = name, place, settings
        self.udp_port = udp_port
        self._lock = threading.Lock()
        self._closed = False
        self._relay = () if settings.relay is None else (_relay(settings.relay),)
        self._remotes: tuple[Remote, ...] = ()
        self.version = ""
        self._interface = self._make()

    @property
    def public_key(self) -> bytes:
        return self._interface.public_key

    @property
    def pid(self) -> int | None:
        """Of the program that carries it; None where the kernel does."""
        return self._interface.pid

    def wait(self) -> bool:
        """Until the interface has gone by itself; False when the tunnel is closed."""
        self._interface.wait()
        return not self._closed

    def describe(self) -> dict[str, Any]:
        """What the run's organization is to sign of it."""
        place = self._place
        return {
            "public_key": b64(self.public_key),
            "address": str(place.address),
            "endpoint": self._endpoint(),
            "ports": [{"port": port, "label": label} for port, label in place.ports.items()],
        }

    def admit(self, peers: Sequence[Peer], version: str, *, newcomer: bool = False) -> None:
        """These peers and no others, of those that can't be mistaken for another or for the run itself.

        A newcomer that can be called lets those that were there before do so, and calls them a moment later.
        """
        waits = newcomer and self._endpoint() is not None
        remotes = tuple(
            Remote(peer.public_key, peer.endpoint, peer.address, calls=not waits)
            for peer in choose_peers(peers, self._place)
            if peer.public_key not in {relay.public_key for relay in self._relay}
        )
        with self._lock:
            if self._closed:
                return
            remotes = self._as_before(remotes)
            # Who left is shut out before, and who came let in after, there is a way to them.
            self._interface.set_peers([*self._relay, *remotes])
            firewall.close(self._place.namespace, _addresses(remotes), self._place.ports)
            self._remotes, self.version = remotes, version
        if waits and remotes:
            _after(_TURN_SECONDS, self._call)

    def _as_before(self, remotes: Sequence[Remote]) -> tuple[Remote, ...]:
        """Who was called stays so, and who waits for its turn waits on."""
        before = {remote.public_key: remote.calls for remote in self._remotes}
        return tuple(replace(remote, calls=before.get(remote.public_key, remote.calls)) for remote in remotes)

    def _call(self) -> None:
        """Whoever has not been called. Where that fails it is done when the server names the peers again, at once."""
        with self._lock:
            if self._closed:
                return
            self._remotes = tuple(replace(remote, calls=True) for remote in self._remotes)
            try:
                self._interface.set_peers([*self._relay, *self._remotes])
            except LauncherError as error:
                log.warning("%s: its peers are not called yet: %s", self._name, error)
                self.version = ""

    def renew(self) -> None:
        """A new interface with a new key in place of one that ended. Meanwhile nothing passes."""
        with self._lock:
            if self._closed:
                return
            self._interface.close()
            self._interface = self._make()

    def meets_relay(self) -> bool:
        """Whether the relay answers, within a few seconds."""
        end = time.monotonic() + _RELAY_SECONDS
        while not all(self._interface.has_met(relay.public_key) for relay in self._relay):
            if time.monotonic() > end:
                return False
            time.sleep(_GLANCE_SECONDS)
        return True

    def drain(self) -> None:
        """Until its peers have acknowledged what the ended algorithm sent them, for a few seconds at most."""
        end = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < end and self._waits_for_word():
            time.sleep(_GLANCE_SECONDS)

    def close(self) -> None:
        """The interface is gone, and its key."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._interface.close()
            os.close(self._place.namespace)

    def _waits_for_word(self) -> bool:
        with self._lock:  # a closed namespace's descriptor may be another file's by now
            return not self._closed and namespace.inside(self._place.namespace, _has_unsent)

    def _endpoint(self) -> str | None:
        """Where others send first: to this machine, or to the relay, which knows the way."""
        settings = self._settings
        if settings.relay is not None:
            return _join(*settings.relay.endpoint)
        return None if settings.endpoint is None else _join(settings.endpoint, self.udp_port)

    def _make(self) -> Interface:
        place = self._place
        # First the rules: at no time is there an interface without them.
        firewall.close(place.namespace, _addresses(self._remotes), place.ports)
        made = choose_driver().make(self._name, self.udp_port)
        try:
            made.set_peers([*self._relay, *self._remotes])
            made.move(place.namespace, place.address, place.subnet, self._settings.mtu)
        except LauncherError:
            made.close()
            raise
        return made


def choose_peers(peers: Sequence[Peer], place: Place) -> list[Peer]:
    """Without those whose address is none of the VPN's, the run's own, or another's too: none takes another's place."""
    addresses = [peer.address for peer in peers]
    keys = [peer.public_key for peer in peers]
    good = []
    for peer in peers:
        alone = addresses.count(peer.address) == 1 and keys.count(peer.public_key) == 1
        if alone and peer.address != place.address and peer.address in place.subnet:
            good.append(peer)
        else:
            log.warning("Run %s says that it has the address %s, which can't be", peer.run, peer.address)
    return good


class Tunnels:
    """The tunnels of a node, by attempt. Safe for threads."""

    def __init__(self, settings: VpnSettings, installation: str) -> None:
        self._settings = settings
        self._installation = installation
        self._lock = threading.Lock()
        self._tunnels: dict[Attempt, Tunnel] = {}
        self._ports: dict[int, socket.socket] = {}
        GoDriver().sweep()

    def open(self, attempt: Attempt, place: Place) -> Tunnel:
        """The attempt's tunnel, with nobody in it yet; it owns the namespace's descriptor now. Raises LauncherError."""
        port = self._take_port()
        try:
            tunnel = Tunnel(name_interface(self._installation, attempt), place, self._settings, port)
        except BaseException:
            os.close(place.namespace)
            self._give_back(port)
            raise
        with self._lock:
            self._tunnels[attempt] = tunnel
        return tunnel

    def find(self, attempt: Attempt) -> Tunnel | None:
        with self._lock:
            return self._tunnels.get(attempt)

    def versions(self) -> dict[Attempt, str]:
        """What each tunnel knows of its peers, for the server to compare."""
        with self._lock:
            return {attempt: tunnel.version for attempt, tunnel in self._tunnels.items()}

    def close(self, attempt: Attempt) -> None:
        """Nothing happens when there is none, but for what an earlier node left."""
        with self._lock:
            tunnel = self._tunnels.pop(attempt, None)
        if tunnel is None:
            GoDriver().remove(name_interface(self._installation, attempt))
            return
        tunnel.close()
        self._give_back(tunnel.udp_port)

    def _take_port(self) -> int:
        with self._lock:
            for port in self._settings.port_range:
                claim = _claim(port)
                if claim is not None:
                    self._ports[port] = claim
                    return port
        raise LauncherError("All UDP ports of this node's VPN are in use: its owner can name more in vpn.ports.")

    def _give_back(self, port: int) -> None:
        with self._lock:
            self._ports.pop(port).close()


def _after(seconds: float, deed: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, deed)
    timer.daemon = True
    timer.start()


def _addresses(remotes: Sequence[Remote]) -> list[ipaddress.IPv4Address]:
    return [remote.address for remote in remotes if remote.address is not None]


def _relay(settings: RelaySettings) -> Remote:
    return Remote(parse_key(settings.public_key), settings.endpoint, None, settings.secret())


def _has_unsent() -> bool:
    """Whether a TCP connection of this namespace waits for an acknowledgement of its end."""
    lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[3] in _ENDING for line in lines)


def name_interface(installation: str, attempt: Attempt) -> str:
    """The same for the same attempt, so that the next node finds it; at most 15 characters (IFNAMSIZ)."""
    return f"sk{hashlib.sha256(f'{installation} {attempt}'.encode()).hexdigest()[:12]}"


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _claim(port: int) -> socket.socket | None:
    """Keeps the port from other nodes of this machine until it is closed; None when it is taken.

    An abstract socket is of the same network namespace as the port, and gone with the process that has it.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0skerry vpn {port}")
    except OSError:
        claim.close()
        return None
    if _is_free(port):
        return claim
    claim.close()
    return None


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind(("", port))
        except OSError:
            return False
    return True
