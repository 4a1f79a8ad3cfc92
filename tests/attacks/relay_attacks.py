"""What a run does to the ways out that the node's owner has opened. The control's relays are of this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from attack import Attack, Struck, Weaken
from cells import RELAY_IMAGE, Cell

from skerry_proxy import destinations, messages, relays
from skerry_proxy.destinations import Destination
from skerry_proxy.messages import Connection, Limits


@dataclass(frozen=True, slots=True)
class Outward:
    """One trick of the attacker's image, tried where there are ways out."""

    name: str

    def __call__(self, cell: Cell) -> Struck:
        return Struck(*cell.strike(self.name, RELAY_IMAGE))


def any_destination(patch: pytest.MonkeyPatch) -> None:
    """Taken as it is written, and not looked for on the list."""

    def choose(_: object, target: str) -> Destination:
        host, _, port = target.rpartition("@")[2].rpartition(":")
        return Destination(host.strip("[]"), int(port))

    patch.setattr(relays.Relay, "_choose", choose)


def any_address(patch: pytest.MonkeyPatch) -> None:
    """A name may lead wherever it leads."""
    patch.setattr(destinations, "is_public", lambda _: True)


def any_destination_and_address(patch: pytest.MonkeyPatch) -> None:
    any_destination(patch)
    any_address(patch)


def any_name(patch: pytest.MonkeyPatch) -> None:
    """As where a name server answers for all names of a domain."""
    any_destination(patch)
    any_address(patch)
    patch.setattr(destinations, "_resolve", lambda _: ["127.0.0.1"])


def bytes_ahead(patch: pytest.MonkeyPatch) -> None:
    """What follows a CONNECT is let pass."""
    genuine = Connection._read_head

    def read(connection: Connection) -> bytes:
        head = genuine(connection)
        connection._buffer = b""
        return head

    patch.setattr(Connection, "_read_head", read)


def large_heads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(messages, "_LARGEST_HEAD", 1 << 20)


def endless_patience(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(relays, "Limits", lambda: Limits(head=3600))


def many_connections(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(relays, "MOST_CONNECTIONS", 64)


def no_namespace(_: pytest.MonkeyPatch) -> None:
    """The control's relay is in none, so that its caller reaches what this machine does."""


def _row(name: str, tries: str, refusal: str, weaken: Weaken | None, excuse: str = "") -> Attack:
    return Attack(f"relay-{name}", tries, refusal, Outward(name), weaken, excuse)


_NOT_LISTED = "403 .*does not let algorithms reach"
_CLOSED = r"refused: (closed|\[Errno (32|104)\])"
_MALFORMED = "400 .*must be host:port"

ATTACKS: list[Attack] = [
    _row("egress-other-port", "reach another service of an allowed host", _NOT_LISTED, any_destination),
    _row("egress-other-address", "reach the node's machine by its address", _NOT_LISTED, any_destination),
    _row("egress-name-inside", "reach inside by a name that leads there", "403 .*private network", any_address),
    _row("egress-subdomain", "write data into a name", _NOT_LISTED, any_name),
    _row("egress-mapped", "reach a service by an IPv4 address as an IPv6 one", _NOT_LISTED, any_destination),
    _row("egress-number", "reach a service by an address as one number", _MALFORMED, any_destination_and_address),
    _row("egress-credentials", "hide the host behind a name", _MALFORMED, any_destination),
    _row("egress-host-header", "name an allowed host beside another target", _NOT_LISTED, any_destination),
    _row("egress-page", "have a page fetched", "405 ", None, "the relay has no code that fetches"),
    _row("egress-early", "send on ahead of the answer", "400 .*Nothing may follow", bytes_ahead),
    _row("egress-huge-head", "fill the proxy's memory by a head", "431 ", large_heads),
    _row("egress-slow-head", "send half a head and wait for ever", "refused: closed", endless_patience),
    _row("egress-half-open", "use up the proxy's threads by halves of heads", _CLOSED, many_connections),
    _row(
        "forward-elsewhere",
        "name another destination to a forwarder",
        "refused: heard",
        None,
        "a forwarder reads nothing of what it carries",
    ),
    _row("forward-redirect", "be sent on by the open service", "Connection refused", no_namespace),
    _row("forward-many", "use up the proxy's threads by a forwarder", _CLOSED, many_connections),
]
