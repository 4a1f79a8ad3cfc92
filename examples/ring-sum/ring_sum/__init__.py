"""A sum that goes round in a ring: each run adds its own number and hands the total to the next, over the VPN.

The first run hides its number behind a random one, so that nobody on the way sees a part of the sum; two neighbours
who work together could still find out what the one between them added.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skerry import AlgorithmClient, central, data

PORT, LABEL = 8888, "ring"
MODULUS = 1 << 64
PATIENCE = 300.0


@central
def total(client: AlgorithmClient, column: str, organizations: list[int] | None = None) -> dict[str, int]:
    """The sum of the column's values, rounded to whole numbers, over all organizations."""
    ids = organizations or [organization["id"] for organization in client.organization.list()]
    task = client.task.create(input_={"method": "add", "kwargs": {"column": column}}, organizations=ids)
    return {"sum": client.wait_for_results(task["id"])[0]["sum"]}


@central
@data(1)
def add(client: AlgorithmClient, frame: Any, column: str) -> dict[str, int]:
    """One run's part; every run ends with the sum."""
    own = round(float(frame[column].sum()))
    with socket.create_server(("0.0.0.0", PORT)) as listener:  # noqa: S104 - its peers come in by wg0
        listener.settimeout(PATIENCE)
        peers = client.vpn.wait_for(label=LABEL)
        ring = list(peers)
        position = ring.index(client.organization_id)
        place = Ring(client, listener, peers[ring[(position + 1) % len(ring)]][0])
        return {"sum": place.go_round(own, first=position == 0)}


@dataclass(frozen=True)
class Ring:
    """One run's place: where it is reached, and the address of the one that follows."""

    client: AlgorithmClient
    listener: socket.socket
    following: Mapping[str, Any]

    def go_round(self, own: int, *, first: bool) -> int:
        """The total goes round once to be added up, behind the first one's mask, and once to be told."""
        if first:
            mask = secrets.randbelow(MODULUS)
            self._send((own + mask) % MODULUS)
            total = (self._receive() - mask) % MODULUS
            self._send(total)
            return self._receive()
        self._send((self._receive() + own) % MODULUS)
        total = self._receive()
        self._send(total)
        return total

    def _send(self, number: int) -> None:
        with self.client.vpn.connect(self.following, PATIENCE) as connection:
            connection.sendall(json.dumps(number).encode())

    def _receive(self) -> int:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as stream:
            return int(json.loads(stream.read()))
