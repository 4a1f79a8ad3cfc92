"""Other organizations' public keys: the pinned ones, or the server's when there is no pin yet."""

from __future__ import annotations

import logging
from typing import Any

from skerry.errors import CryptoError, MissingKey
from skerry.keys import Identity, OrganizationKeys
from skerry.pins import Pin, Pins
from skerry.statements import Announced
from skerry_proxy.upstream import Call, Upstream, patiently

log = logging.getLogger(__name__)


class Keyring:
    """The keys that this organization believes in. Its own are those of its key file, whatever the server says."""

    def __init__(
        self, organization: int, collaboration: int, identity: Identity, pins: Pins, upstream: Upstream
    ) -> None:
        self._own = organization
        self._collaboration = collaboration
        self._pins = pins
        self._upstream = upstream
        self._version: str | None = None
        pins.confirm(identity.own_keys(organization))

    def find(self, organization: int, token: str) -> OrganizationKeys:
        """Raises MissingKey, KeyChanged, KeyNotConfirmed, or what the upstream raises when it has to be asked."""
        return self._pins.get(organization) or self.check(organization, token)

    def check(self, organization: int, token: str) -> OrganizationKeys:
        """Compares the server's present keys with the pin, and pins them if there is none; raises as ``find``."""
        known = self._pins.get(organization) if organization == self._own else None
        if known is not None:
            return known
        for entry in self._fetch(token):
            if entry["organization_id"] == organization:
                return self._pins.trust(Announced.from_wire(entry))
        raise MissingKey(
            f"Organization {organization} has not registered its keys: its owner does so by starting its node, or "
            "with `client.setup_encryption(...)`."
        )

    def refresh(self, version: str | None, token: str) -> None:
        """Hears what organizations have said of their keys, where the server says that this has changed.

        What does not fit a pin changes nothing. Raises what the upstream raises.
        """
        if version is None or version == self._version:
            return
        for entry in self._fetch(token):
            organization = entry["organization_id"]
            if self._pins.knows(organization):
                try:
                    self._pins.trust(Announced.from_wire(entry))
                except CryptoError as error:
                    log.warning("organization %s: %s", organization, error)
        self._version = version

    def all(self) -> list[Pin]:
        return self._pins.all()

    def _fetch(self, token: str) -> list[dict[str, Any]]:
        call = Call("GET", "/skerry/keys", token, [("collaboration_id", self._collaboration)])
        answer = patiently(lambda: self._upstream.answer(call))
        entries = answer.get("data") if isinstance(answer, dict) else None
        return [entry for entry in entries if _is_entry(entry)] if isinstance(entries, list) else []


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("organization_id")) is int and bool(entry.get("public_key"))
