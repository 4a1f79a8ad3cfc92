"""Namespaces with tunnels in them, and what is said between them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass, field

from skerry.keys import Identity
from skerry.peering import Peer, sign_peer
from skerry_node.namespace import inside
from skerry_node.vpn import Tunnel

SUBNET = ipaddress.IPv4Network("10.99.0.0/24")
PORT = 8888
PATIENCE = 60.0


@dataclass
class End:
    """A namespace with a tunnel in it."""

    number: int
    namespace: int
    tunnel: Tunnel
    identity: Identity
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(SUBNET[self.number])

    def peer(self) -> Peer:
        said = self.tunnel.describe()
        numbers = {"run": self.number, "attempt": 1, "collaboration": 1, "organization": self.number, "created": 1}
        said = {**said, **numbers, "job": "job"}
        return Peer.parse(sign_peer(self.identity, said))

    def listen(self, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.settimeout(PATIENCE)
            made.bind(("", port))
            if kind == socket.SOCK_STREAM:
                made.listen()
            return made

        self.listeners.append(inside(self.namespace, bind))
        return self.listeners[-1]

    def call(self, host: str, port: int, timeout: float = PATIENCE) -> bool:
        """Whether a TCP connection comes about."""

        def dial() -> bool:
            with contextlib.closing(socket.create_connection((host, port), timeout)):
                return True

        try:
            return inside(self.namespace, dial)
        except OSError:
            return False


def join(*ends: End) -> None:
    for one in ends:
        one.tunnel.admit([other.peer() for other in ends if other is not one], "v")
