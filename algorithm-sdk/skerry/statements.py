"""What an organization says about its own keys, signed by itself: who succeeds them, and whose certificates are void.

The server hands these statements on. It can hold one back, but it can't make one. Formats:
``docs/reference/native-protocol.md``, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skerry.errors import CryptoError, KeyChanged, KeyFileError, SignatureError
from skerry.keys import Identity, OrganizationKeys, PreviousKey, RetiredKey, verify_signature
from skerry.wire import b64, canonical, unb64

OVERLAP = 24 * 3600
"""Seconds for which the old key of a successor may still sign: until the organization's nodes have the new one."""

MAXIMUM_STATEMENTS = 64
_SUCCESSION = b"skerry succession v1\0"
_REVOCATION = b"skerry revocation v1\0"
_LARGEST = 1 << 53
_MALFORMED = "A statement of an organization about its keys is malformed."


@dataclass(frozen=True, slots=True)
class Succession:
    """An organization's word, signed by its old key, that ``keys`` take the place of those with that fingerprint.

    ``until``: what the old key signed is believed when it is dated no later; 0 where it fell into wrong hands.
    """

    keys: OrganizationKeys
    previous: str
    until: int
    wire: dict[str, Any]

    @classmethod
    def parse(cls, value: Any) -> Succession:
        """Raises CryptoError for anything that is not exactly a succession; its signature is not verified yet."""
        texts = ("previous", "public_key", "signing_key", "binding", "signature")
        _check_shape(value, texts=texts, numbers=("organization_id", "created", "until"))
        keys = OrganizationKeys.from_wire(value)
        if keys.signing is None:
            raise CryptoError(_MALFORMED)
        return cls(keys, value["previous"], value["until"], value)

    def verify(self, old: OrganizationKeys) -> None:
        """Raises SignatureError unless the holder of the old keys said so."""
        if (old.organization_id, old.fingerprint) != (self.keys.organization_id, self.previous):
            raise SignatureError("The successor of an organization's keys names other keys as its predecessor.")
        _verify(_SUCCESSION, self.wire, old.require_signing())


@dataclass(frozen=True, slots=True)
class Revocation:
    """An organization's list of users whose certificates are void when made no later than at the time beside them."""

    organization_id: int
    created: int
    revoked: tuple[tuple[int, int], ...]
    wire: dict[str, Any]

    @classmethod
    def parse(cls, value: Any) -> Revocation:
        """Raises CryptoError for anything that is not exactly a revocation; its signature is not verified yet."""
        _check_shape(value, texts=("signature",), numbers=("organization_id", "created"), lists=("revoked",))
        for entry in value["revoked"]:
            _check_shape(entry, numbers=("user", "before"))
        revoked = tuple((entry["user"], entry["before"]) for entry in value["revoked"])
        return cls(value["organization_id"], value["created"], revoked, value)

    def verify(self, keys: OrganizationKeys) -> None:
        """Raises SignatureError unless the organization said so, with a key that counted then."""
        if keys.organization_id != self.organization_id:
            raise SignatureError("A revocation is another organization's.")
        for key in keys.signing_keys(at=self.created):
            try:
                return _verify(_REVOCATION, self.wire, key)
            except SignatureError:
                continue
        raise SignatureError("A revocation was not signed by the organization that it speaks for.")


@dataclass(frozen=True, slots=True)
class Announced:
    """All that the server shows of an organization's keys: a claim, until it is compared with a pin."""

    keys: OrganizationKeys
    successions: tuple[Succession, ...] = ()
    revocation: Revocation | None = None

    @classmethod
    def from_wire(cls, value: dict[str, Any]) -> Announced:
        """Raises CryptoError."""
        keys, shown = OrganizationKeys.from_wire(value), value.get("successions") or []
        if not isinstance(shown, list) or len(shown) > MAXIMUM_STATEMENTS:
            raise CryptoError(_MALFORMED)
        revocation = value.get("revocation")
        return cls(
            keys,
            tuple(Succession.parse(one) for one in shown),
            None if revocation is None else Revocation.parse(revocation),
        )

    def follow(self, old: OrganizationKeys) -> OrganizationKeys:
        """From keys that are believed to these, by the statements that lead there. Raises KeyChanged without them."""
        known = old
        for _ in self.successions:
            if known == self.keys:
                break
            known = self._step(known)
        if known != self.keys:
            raise self._changed()
        return known

    def _step(self, old: OrganizationKeys) -> OrganizationKeys:
        for succession in self.successions:
            if succession.previous == old.fingerprint:
                try:
                    succession.verify(old)
                except CryptoError as error:
                    raise self._changed() from error
                retired = (RetiredKey(old.require_signing(), succession.until), *old.retired)
                return replace(succession.keys, retired=retired, revoked=old.revoked)
        raise self._changed()

    def _changed(self) -> KeyChanged:
        return KeyChanged(
            f"The server shows other keys for organization {self.keys.organization_id} than before (now "
            f"{self.keys.fingerprint}). Ask that organization whether it changed them, then `skerry key confirm`."
        )


def succeed(old: Identity, organization_id: int, *, compromised: bool) -> tuple[Identity, dict[str, Any]]:
    """New keys for an organization, which still decrypt for the old ones, and the old key's word for them.

    Raises MissingKey for a file without a signing key, KeyFileError for a user's file.
    """
    if old.certificate is not None:
        raise KeyFileError("This is a user's key file; only the organization's own keys can be replaced.")
    signer, now = old.require_signing(), int(time.time())
    until = 0 if compromised else now + OVERLAP
    retired = RetiredKey(signer.public_key().public_bytes_raw(), until)
    fresh = replace(Identity.generate(), previous=(PreviousKey(old.encryption, retired), *old.previous))
    statement = {
        **fresh.organization_keys(organization_id),
        "previous": old.own_keys(organization_id).fingerprint,
        "created": now,
        "until": until,
    }
    return fresh, _sign(_SUCCESSION, statement, old)


def revoked(issuer: Identity, organization_id: int, users: Mapping[int, int]) -> dict[str, Any]:
    """The whole list anew: until when each user's certificates are void. Raises MissingKey."""
    entries = [{"user": user, "before": before} for user, before in sorted(users.items())]
    statement = {"organization_id": organization_id, "created": int(time.time()), "revoked": entries}
    return _sign(_REVOCATION, statement, issuer)


def _sign(purpose: bytes, statement: dict[str, Any], identity: Identity) -> dict[str, Any]:
    return {**statement, "signature": b64(identity.require_signing().sign(purpose + canonical(statement)))}


def _verify(purpose: bytes, wire: dict[str, Any], signing_key: bytes) -> None:
    body = {name: part for name, part in wire.items() if name != "signature"}
    try:
        signature = unb64(wire["signature"])
    except ValueError as error:
        raise SignatureError(_MALFORMED) from error
    verify_signature(signing_key, signature, purpose + canonical(body))


def _check_shape(
    value: Any, *, texts: Sequence[str] = (), numbers: Sequence[str] = (), lists: Sequence[str] = ()
) -> None:
    wanted = {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, int), **dict.fromkeys(lists, list)}
    if not isinstance(value, dict) or {name: type(part) for name, part in value.items()} != wanted:
        raise CryptoError(_MALFORMED)
    if any(not 0 <= value[name] < _LARGEST for name in numbers):
        raise CryptoError(_MALFORMED)
