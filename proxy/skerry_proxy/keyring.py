"""Other organizations' public keys: the pinned ones, or the server's when there is no pin yet."""

from __future__ import annotations

from typing import Any

from skerry.errors import MissingKey
from skerry.keys import Identity, OrganizationKeys
from skerry.pins import Pin, Pins
from skerry_proxy.upstream import Call, Upstream, patiently


class Keyring:
    """The keys that this organization believes in. Its own are those of its key file, whatever the server says."""

    def __init__(
        self, organization: int, collaboration: int, identity: Identity, pins: Pins, upstream: Upstream
    ) -> None:
        self._own = OrganizationKeys.from_wire(identity.organization_keys(organization))
        self._collaboration = collaboration
        self._pins = pins
        self._upstream = upstream

    def find(self, organization: int, token: str) -> OrganizationKeys:
        """Raises MissingKey, KeyChanged, KeyNotConfirmed, or what the upstream raises when it has to be asked."""
        if organization == self._own.organization_id:
            return self._own
        return self._pins.get(organization) or self.check(organization, token)

    def check(self, organization: int, token: str) -> OrganizationKeys:
        """Compares the server's present keys with the pin, and pins them if there is none; raises as ``find``."""
        if organization == self._own.organization_id:
            return self._own
        for entry in self._fetch(token):
            if isinstance(entry, dict) and entry.get("organization_id") == organization and entry.get("public_key"):
                return self._pins.trust(OrganizationKeys.from_wire(entry))
        raise MissingKey(
            f"Organization {organization} has not registered its keys: its owner does so by starting its node, or "
            "with `client.setup_encryption(...)`."
        )

    def all(self) -> list[Pin]:
        return self._pins.all()

    def _fetch(self, token: str) -> list[Any]:
        call = Call("GET", "/skerry/keys", token, [("collaboration_id", self._collaboration)])
        answer = patiently(lambda: self._upstream.answer(call))
        entries = answer.get("data") if isinstance(answer, dict) else None
        return entries if isinstance(entries, list) else []
