"""WireGuard in the kernel, spoken to over netlink.

The socket stays in the namespace where the interface was made; its configuration belongs to the one where it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skerry.wire import b64
from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import inside
from skerry_node.wireguard import INSIDE, KEEPALIVE_SECONDS, Change, Known, Remote, carry_over, started

T = TypeVar("T")

KIND = "wireguard"


class KernelInterface:
    """An interface of the kernel's (see ``wireguard.Interface``). It does not end by itself."""

    def __init__(self, name: str, private: X25519PrivateKey) -> None:
        self._name = name
        self._private = private
        self._namespace: int | None = None
        self._known = Known()
        self._ended = threading.Event()

    @property
    def public_key(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    @property
    def pid(self) -> int | None:
        return None

    def start(self, port: int) -> None:
        self._tell({"private_key": b64(self._private.private_bytes_raw()), "listen_port": port})

    def wait(self) -> None:
        self._ended.wait()

    def move(self, namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, mtu: int) -> None:
        carry_over(self._name, namespace, address, subnet, mtu)
        self._namespace = namespace

    def set_peers(self, remotes: Iterable[Remote]) -> None:
        gone, changes = self._known.compare(remotes)
        said = [{"public_key": b64(key), "remove": True} for key in gone]
        self._tell(*({"peer": one} for one in [*said, *map(_as_told, changes)]))
        self._known.take(gone, changes)

    def has_met(self, public_key: bytes) -> bool:
        for message in self._in_place(lambda wireguard, name: list(wireguard.info(name))):
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                if peer.get_attr("WGPEER_A_PUBLIC_KEY") == b64(public_key).encode():
                    met: int = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")["tv_sec"]
                    return met > 0
        return False

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError, LauncherError):  # its namespace has gone, and it with that
            self._here(lambda: _delete(INSIDE if self._namespace is not None else self._name))

    def _tell(self, *requests: dict[str, Any]) -> None:
        def work(wireguard: Any, name: str) -> None:
            for request in requests:
                wireguard.set(name, **request)

        self._in_place(work)

    def _in_place(self, work: Callable[[Any, str], T]) -> T:
        from pyroute2 import WireGuard  # noqa: PLC0415 - most nodes have no VPN, and it takes a while to import
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

        def body() -> T:
            with WireGuard() as wireguard:
                return work(wireguard, self._name if self._namespace is None else INSIDE)

        try:
            return self._here(body)
        except (OSError, NetlinkError) as error:
            raise LauncherError(f"The kernel's WireGuard does not take its configuration: {error}") from error

    def _here(self, work: Callable[[], T]) -> T:
        """Done where the interface is now."""
        return work() if self._namespace is None else inside(self._namespace, work)


class KernelDriver:
    """The kernel's own WireGuard (see ``wireguard.Driver``)."""

    name = "the kernel's WireGuard"

    def missing(self) -> str | None:
        try:
            _add(name := f"sk{secrets.token_hex(6)}")
        except LauncherError as error:
            return str(error)
        self.remove(name)
        return None

    def make(self, name: str, port: int) -> KernelInterface:
        self.remove(name)
        _add(name)
        return started(KernelInterface(name, X25519PrivateKey.generate()), port)

    def remove(self, name: str) -> None:
        """What an earlier node left here; what it had moved goes with the run's namespace."""
        with contextlib.suppress(OSError):
            _delete(name)


def _as_told(change: Change) -> dict[str, Any]:
    remote = change.remote
    allowed = [] if remote.address is None else [f"{remote.address}/32"]
    told: dict[str, Any] = {"public_key": b64(remote.public_key), "replace_allowed_ips": True, "allowed_ips": allowed}
    if remote.secret is not None:
        told["preshared_key"] = b64(remote.secret)
    if change.moves and remote.endpoint is not None:
        told["endpoint_addr"], told["endpoint_port"] = remote.endpoint
    if change.calls:
        told["persistent_keepalive"] = KEEPALIVE_SECONDS
    return told


def _add(name: str) -> None:
    """Raises LauncherError."""
    from pyroute2 import IPRoute  # noqa: PLC0415
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as route:
            route.link("add", ifname=name, kind=KIND)
    except (OSError, NetlinkError) as error:
        raise LauncherError(f"The kernel makes no WireGuard interface ({error}).") from error


def _delete(name: str) -> None:
    """Nothing happens when there is none. Raises OSError."""
    from pyroute2 import IPRoute  # noqa: PLC0415
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=name):
                route.link("del", index=index)
    except NetlinkError as error:
        raise OSError(error.code, str(error)) from error
