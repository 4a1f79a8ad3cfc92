"""Where a request comes from: the peer, or what a proxy that is trusted says of it. Rules without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_UNKNOWN = "unknown"
_SUBSCRIBER = 64


def of_caller(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The nearest address that is no trusted proxy's; anybody may have written what stands further left.

    An IPv6 address stands for its /64, which is what one subscriber has.
    """
    hops = [part.strip() for line in forwarded for part in line.split(",")]
    address = _parse(peer)
    while hops and address is not None and is_within(address, trusted):
        address = _parse(hops.pop())
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _SUBSCRIBER), strict=False))
    return _UNKNOWN if address is None else str(address)


def is_within(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def is_loopback(host: str) -> bool:
    address = _parse(host)
    return host == "localhost" if address is None else address.is_loopback


def may_speak_plainly(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Whether a request without TLS may come from there: this very machine, or a proxy that is trusted."""
    address = _parse(peer)
    return address is not None and (address.is_loopback or is_within(address, trusted))


def _parse(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address((text or "").strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
