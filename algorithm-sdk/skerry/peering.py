"""How a run presents itself to the other runs of its job, who reach it over WireGuard: signed by its organization.

The server hands these statements on. It can hold one back, but it can't make one, so it can't put itself in between.
Format: ``docs/reference/native-protocol.md``, section 7.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skerry.errors import CryptoError, SignatureError
from skerry.keys import Identity, OrganizationKeys, verify_signature
from skerry.wire import b64, canonical, unb64

MOST_PORTS = 64
_PURPOSE = b"skerry peer v1\0"
_KEY_BYTES = 32
_LARGEST = 1 << 53
_PORTS = range(1, 1 << 16)
_JOB = re.compile(r"[A-Za-z0-9-]{1,64}")
_LABEL_LENGTH = 128
_NUMBERS = ("run", "attempt", "collaboration", "organization", "created")
_FIELDS = frozenset({*_NUMBERS, "v", "job", "public_key", "address", "endpoint", "ports", "signature"})


@dataclass(frozen=True, slots=True)
class Peer:
    """``endpoint`` is host and port where its WireGuard is reached, None where it only calls others itself.

    ``ports`` are the algorithm's, each with its label or None. ``job`` is the UUID of the job's first task, as its user
    signed it. ``public_key`` is WireGuard's, made for this attempt alone.
    """

    run: int
    attempt: int
    collaboration: int
    organization: int
    job: str
    public_key: bytes
    address: ipaddress.IPv4Address
    endpoint: tuple[str, int] | None
    ports: Mapping[int, str | None]
    created: int
    wire: dict[str, Any]

    @classmethod
    def parse(cls, value: Any) -> Peer:
        """Raises CryptoError for anything that is not exactly such a statement; its signature is not verified yet."""
        try:
            return _parse(value)
        except (ValueError, TypeError, KeyError) as error:
            raise CryptoError(f"The statement of a peer is malformed: {error}.") from error

    def verify(self, keys: OrganizationKeys) -> None:
        """Raises SignatureError unless the organization that it names has signed it."""
        if keys.organization_id != self.organization:
            raise SignatureError("The statement of a peer is another organization's.")
        body = {name: part for name, part in self.wire.items() if name != "signature"}
        verify_signature(keys.require_signing(), unb64(self.wire["signature"]), _PURPOSE + canonical(body))


def sign_peer(identity: Identity, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The statement of these fields on the wire. Raises MissingKey; CryptoError for what ``Peer`` would not parse."""
    body = {"v": 1, **fields}
    statement = {**body, "signature": b64(identity.require_signing().sign(_PURPOSE + canonical(body)))}
    return Peer.parse(statement).wire


def _parse(value: Any) -> Peer:
    if not isinstance(value, dict) or value.keys() != _FIELDS or value["v"] != 1:
        raise ValueError("its fields are others than those of this version")
    for name in _NUMBERS:
        if type(value[name]) is not int or not 1 <= value[name] < _LARGEST:
            raise ValueError(f'"{name}" is no number that it can be')
    if not isinstance(value["job"], str) or not _JOB.fullmatch(value["job"]):
        raise ValueError('"job" is not a UUID')
    key = unb64(value["public_key"])
    if len(key) != _KEY_BYTES or not isinstance(value["signature"], str):
        raise ValueError('"public_key" is not a key of WireGuard')
    return Peer(
        **{name: value[name] for name in _NUMBERS},
        job=value["job"],
        public_key=key,
        address=_parse_address(value["address"]),
        endpoint=parse_endpoint(value["endpoint"]),
        ports=_parse_ports(value["ports"]),
        wire=value,
    )


def _parse_address(text: Any) -> ipaddress.IPv4Address:
    if not isinstance(text, str):
        raise TypeError('"address" is not a text')
    return ipaddress.IPv4Address(text)


def parse_endpoint(text: Any) -> tuple[str, int] | None:
    """From ``address:port``, IPv6 in brackets; raises ValueError. Never a name: nobody is made to look one up."""
    if text is None:
        return None
    host, _, port = str(text).rpartition(":")
    address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) not in _PORTS:
        raise ValueError('"endpoint" has no port')
    if address.is_multicast or address.is_unspecified:
        raise ValueError('"endpoint" is no address of a host')
    return str(address), int(port)


def _parse_ports(rows: Any) -> dict[int, str | None]:
    if not isinstance(rows, list) or len(rows) > MOST_PORTS:
        raise ValueError(f'"ports" has more than {MOST_PORTS} entries')
    ports: dict[int, str | None] = {}
    for row in rows:
        if not isinstance(row, dict) or row.keys() != {"port", "label"} or row["port"] in ports:
            raise ValueError('"ports" has an entry that is no port')
        label = row["label"]
        if type(row["port"]) is not int or row["port"] not in _PORTS:
            raise ValueError('"ports" has an entry that is no port')
        if label is not None and (not isinstance(label, str) or not 0 < len(label) <= _LABEL_LENGTH):
            raise ValueError('"ports" has a label that is too long')
        ports[row["port"]] = label
    return ports
