"""A sum by additive secret shares: nobody sees another's number, unless all others work together.

Each run cuts its number into random shares that add up to it, keeps one, and sends one to each other run over the VPN.
What a run publishes is the sum of the shares that it has: those sums add up to the total.
"""

from __future__ import annotations

import json
import secrets
import socket
from typing import Any

from skerry import AlgorithmClient, central, data

PORT, LABEL = 8888, "shares"
MODULUS = 1 << 64
PATIENCE = 300.0


@central
def total(client: AlgorithmClient, column: str, organizations: list[int] | None = None) -> dict[str, int]:
    """The sum of the column's values, rounded to whole numbers, over all organizations."""
    ids = organizations or [organization["id"] for organization in client.organization.list()]
    task = client.task.create(input_={"method": "exchange", "kwargs": {"column": column}}, organizations=ids)
    return {"sum": sum(client.wait_for_results(task["id"])) % MODULUS}


@central
@data(1)
def exchange(client: AlgorithmClient, frame: Any, column: str) -> int:
    """The sum of one share of everybody's number: by itself, it says nothing of any."""
    own = round(float(frame[column].sum()))
    with socket.create_server(("0.0.0.0", PORT)) as listener:  # noqa: S104 - its peers come in by wg0
        listener.settimeout(PATIENCE)
        peers = client.vpn.wait_for(label=LABEL)
        others = [addresses[0] for organization, addresses in peers.items() if organization != client.organization_id]
        shares = cut(own, len(others) + 1)
        for address, share in zip(others, shares[1:], strict=True):
            with client.vpn.connect(address, PATIENCE) as connection:
                connection.sendall(json.dumps(share).encode())
        return (shares[0] + sum(_receive(listener) for _ in others)) % MODULUS


def cut(number: int, pieces: int) -> list[int]:
    """Random numbers that add up to this one, modulo 2^64; any of them but one are independent of it."""
    drawn = [secrets.randbelow(MODULUS) for _ in range(pieces - 1)]
    return [(number - sum(drawn)) % MODULUS, *drawn]


def _receive(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as stream:
        return int(json.loads(stream.read()))
