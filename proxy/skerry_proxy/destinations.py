"""Where a node's owner lets bytes go: exact hosts and ports, and how one is dialled."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass

from skerry.addresses import is_public

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LARGEST_PORT = 65535
_CONNECT_SECONDS = 10.0


class NotPublic(Exception):
    """A name that leads to an address which is not the internet's."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A host, by its name in lower case or its address as it is written shortest, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address, which nobody needs to resolve."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @classmethod
    def parse(cls, text: str) -> Destination:
        """From ``host:port`` or ``[IPv6]:port``, and from no other spelling; raises ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not _PORT.fullmatch(port) or int(port) > _LARGEST_PORT:
            raise ValueError("write it as host:port, with a port of 1 to 65535")
        return cls(parse_host(host), int(port))


def parse_host(text: str) -> str:
    """A name or an address, in the one spelling that is compared; raises ValueError."""
    if text.startswith("[") and text.endswith("]") and "%" not in text:
        return ipaddress.IPv6Address(text[1:-1]).compressed
    name = text.lower()
    # A name whose last part is a number is an address to those who resolve it, in spellings that hide which.
    if re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", name.rpartition(".")[2]):
        return ipaddress.IPv4Address(name).compressed
    if not _NAME.fullmatch(name):
        raise ValueError("the host must be a name, an IPv4 address, or an IPv6 address in brackets")
    return name


def dial(destination: Destination) -> socket.socket:
    """A connection to what the owner named, wherever that is; resolved now. Raises OSError."""
    return socket.create_connection((destination.host, destination.port), timeout=_CONNECT_SECONDS)


def dial_public(destination: Destination) -> socket.socket:
    """As ``dial``; a name must lead to the internet's addresses only. Raises OSError or NotPublic.

    It is resolved once, and the connection goes to an address that was looked at.
    """
    if destination.is_literal:
        return dial(destination)
    found = _resolve(destination)
    if not all(is_public(address) for address in found):
        raise NotPublic(f"{destination.host} leads to an address that is not the internet's.")
    return _dial_first(found, destination.port)


def _resolve(destination: Destination) -> list[str]:
    try:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{destination.host} is not the name of a host") from error
    return [str(address[0]) for *_, address in found]


def _dial_first(addresses: Collection[str], port: int) -> socket.socket:
    trouble: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_CONNECT_SECONDS)
        except OSError as error:
            trouble = error
    raise trouble
