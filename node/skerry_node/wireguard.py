"""One WireGuard interface of one run: made in the node's own namespace, where its UDP socket stays, and moved.

The container that ends up beside the interface has no capability, no device and no key. The kernel carries it where it
knows WireGuard, the program ``wireguard-go`` elsewhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import inside

INSIDE = "wg0"
"""The interface's name where the algorithm sees it."""
KEEPALIVE_SECONDS = 25


@dataclass(frozen=True, slots=True)
class Remote:
    """Whom an interface talks to: WireGuard's public key, and where to send (None: it calls first).

    ``address`` is its one address in the VPN, None of a relay, which has none; ``secret`` is what it shares with us.
    ``calls``: it is called at once and kept, not only when there is something to say.
    """

    public_key: bytes
    endpoint: tuple[str, int] | None
    address: ipaddress.IPv4Address | None
    secret: bytes | None = None
    calls: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be said to WireGuard of one remote; ``moves``: also where it is; ``calls``: also to call it now."""

    remote: Remote
    moves: bool
    calls: bool


class Known:
    """Whom an interface knows: nobody else changes it."""

    def __init__(self) -> None:
        self._remotes: dict[bytes, Remote] = {}

    def compare(self, remotes: Iterable[Remote]) -> tuple[list[bytes], list[Change]]:
        """The keys of those that go, and what is to be said of the others.

        One whose endpoint stays is not told it again: WireGuard may have heard it at a better one since.
        """
        wanted = {remote.public_key: remote for remote in remotes}
        gone = [key for key in self._remotes if key not in wanted]
        return gone, [self._compare(remote) for remote in wanted.values()]

    def take(self, gone: Iterable[bytes], changes: Iterable[Change]) -> None:
        """They are as was said."""
        for key in gone:
            del self._remotes[key]
        self._remotes.update({change.remote.public_key: change.remote for change in changes})

    def _compare(self, remote: Remote) -> Change:
        before = self._remotes.get(remote.public_key)
        moves = remote.endpoint is not None and (before is None or before.endpoint != remote.endpoint)
        calls = remote.endpoint is not None and remote.calls and (before is None or moves or not before.calls)
        return Change(remote, moves, calls)


class Interface(Protocol):
    """A running interface and its key, which nobody else knows. Its methods raise LauncherError."""

    @property
    def public_key(self) -> bytes: ...

    def start(self, port: int) -> None:
        """Gives it its key and its UDP port."""
        ...

    @property
    def pid(self) -> int | None:
        """Of the program that carries it; None where the kernel does."""
        ...

    def wait(self) -> None:
        """Until it has ended."""
        ...

    def move(self, namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, mtu: int) -> None:
        """Into a network namespace (a descriptor, which stays open), where it gets this address and a way to its
        subnet. What an earlier node left there goes.
        """
        ...

    def set_peers(self, remotes: Iterable[Remote]) -> None:
        """These and no others. One that stays keeps its session, and the endpoint at which it was last heard."""
        ...

    def has_met(self, public_key: bytes) -> bool:
        """Whether this remote has answered."""
        ...

    def close(self) -> None:
        """The interface and its key are gone."""
        ...


Made = TypeVar("Made", bound=Interface)


class Driver(Protocol):
    """Makes interfaces of one kind."""

    name: str

    def missing(self) -> str | None:
        """Why this machine can't make such interfaces, in one sentence; None when it can."""
        ...

    def make(self, name: str, port: int) -> Interface:
        """A fresh interface with a fresh key, reached at this UDP port. What an earlier node left of it goes.

        Raises LauncherError.
        """
        ...


def started(made: Made, port: int) -> Made:
    """The interface, at this port. It is closed where it can't be started."""
    try:
        made.start(port)
    except BaseException:
        made.close()
        raise
    return made


def carry_over(
    name: str, namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, mtu: int
) -> None:
    """Moves an interface as ``Interface.move`` says. Raises LauncherError."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - most nodes have no VPN, and it takes a while to import
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    def make_room() -> None:
        with IPRoute() as there:
            for index in there.link_lookup(ifname=INSIDE):
                there.link("del", index=index)

    def settle() -> None:
        with IPRoute() as there:
            [index] = there.link_lookup(ifname=name)
            there.link("set", index=index, ifname=INSIDE, mtu=mtu)
            there.addr("add", index=index, address=str(address), prefixlen=32)
            there.link("set", index=index, state="up")
            there.route("add", dst=str(subnet), oif=index, prefsrc=str(address))

    try:
        inside(namespace, make_room)
        with IPRoute() as here:
            [index] = here.link_lookup(ifname=name)
            here.link("set", index=index, net_ns_fd=namespace)
        inside(namespace, settle)
    except (OSError, NetlinkError, ValueError) as error:
        raise LauncherError(f"A WireGuard interface can't be moved into a run's namespace: {error}") from error
