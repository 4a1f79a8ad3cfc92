"""Where the runs of one job listen, as their organizations signed it: the server's word on it is compared with this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skerry.errors import ServerError
from skerry.peering import Peer

Place = tuple[str, int, str | None, int]
"""Address, port, its label and the organization."""


class Neighbours:
    """Of one run. Safe for threads: each fact is replaced as a whole."""

    def __init__(self) -> None:
        self._own: frozenset[Place] = frozenset()
        self._others: frozenset[Place] = frozenset()

    def introduce(self, own: Peer) -> None:
        """The run itself."""
        self._own = _places([own])

    def meet(self, others: Sequence[Peer]) -> None:
        """These and no others."""
        self._others = _places(others)

    def keep(self, answer: Any) -> dict[str, Any]:
        """The server's addresses without those that no organization vouches for. Raises ServerError."""
        rows = answer.get("addresses") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ServerError("The server's answer is not a list of addresses.", 200)
        known = self._own | self._others
        return {"addresses": [row for row in rows if _place(row) in known]}


def _places(peers: Sequence[Peer]) -> frozenset[Place]:
    return frozenset(
        (str(peer.address), port, label, peer.organization) for peer in peers for port, label in peer.ports.items()
    )


def _place(row: Any) -> Place | None:
    try:
        place = row["ip"], row["port"], row["label"], row["organization_id"]
        hash(place)
    except (KeyError, TypeError):
        return None
    return place
