"""Pinned keys: what this node or client has once believed about organizations' keys, and keeps to.

One JSON file, mode 0600, replaced as a whole at each change.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skerry.errors import ConfigurationError, CryptoError, KeyNotConfirmed
from skerry.keys import OrganizationKeys, RetiredKey
from skerry.statements import Announced, Revocation
from skerry.wire import b64, unb64

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """The keys of one organization, whether an owner has confirmed them, and the age of its list of revocations."""

    keys: OrganizationKeys
    confirmed: bool
    revoked_at: int = 0

    def heed(self, revocation: Revocation | None) -> Pin:
        """With a newer list of revocations, if it is the organization's; an older one is no way back."""
        if revocation is None or revocation.created <= self.revoked_at:
            return self
        try:
            revocation.verify(self.keys)
        except CryptoError as error:
            _LOG.warning("organization %s: a list of revocations is not heeded: %s", self.keys.organization_id, error)
            return self
        return Pin(replace(self.keys, revoked=revocation.revoked), self.confirmed, revocation.created)


class Pins:
    """The pins of one file. Safe for threads and for processes: an owner's word counts at once where they are used."""

    def __init__(self, path: Path, *, require_confirmed: bool = False) -> None:
        self._path = path
        self._require_confirmed = require_confirmed
        self._lock = threading.Lock()
        self._version = _version(path)
        self._pins = _read(path)

    def trust(self, shown: Announced) -> OrganizationKeys:
        """The keys, now pinned. Keys that the pinned ones name as their successors take their place.

        Raises KeyChanged for others than the pinned ones, KeyNotConfirmed by policy.
        """
        organization = shown.keys.organization_id
        with self._changing() as pins:
            old = pins.get(organization)
            pin = Pin(shown.keys, confirmed=False) if old is None else replace(old, keys=shown.follow(old.keys))
            pin = pin.heed(shown.revocation)
            pins[organization] = pin
        if self._require_confirmed and not pin.confirmed:
            raise KeyNotConfirmed(
                f"The keys of organization {organization} ({pin.keys.fingerprint}) are not confirmed yet: "
                "compare them with that organization, then `skerry key confirm`."
            )
        return pin.keys

    def get(self, organization_id: int) -> OrganizationKeys | None:
        """The pinned keys, if they may be used: None when there are none or they lack the confirmation required."""
        pin = self._present().get(organization_id)
        return pin.keys if pin is not None and (pin.confirmed or not self._require_confirmed) else None

    def knows(self, organization_id: int) -> bool:
        """Whether there is a pin, usable or not."""
        return organization_id in self._present()

    def confirm(self, keys: OrganizationKeys) -> None:
        """An owner's word: these are the keys from now on."""
        with self._changing() as pins:
            old = pins.get(keys.organization_id)
            known = Pin(keys, confirmed=True) if old is None else old
            revoked = known.keys.revoked
            kept = known.keys.retired if known.keys == keys and not keys.retired else keys.retired
            fresh = replace(keys, retired=kept, revoked=revoked)
            pins[keys.organization_id] = Pin(fresh, confirmed=True, revoked_at=known.revoked_at)

    def all(self) -> list[Pin]:
        pins = self._present()
        return [pins[organization_id] for organization_id in sorted(pins)]

    def _present(self) -> dict[int, Pin]:
        with self._lock:
            self._look_again()
            return dict(self._pins)

    def _look_again(self) -> None:
        """Another process may have written: an owner who confirms keys while the node runs."""
        version = _version(self._path)
        if version != self._version:
            self._pins, self._version = _read(self._path), version

    @contextmanager
    def _changing(self) -> Iterator[dict[int, Pin]]:
        """The pins to change; they are written if they then differ, before another process may change them."""
        with self._lock, _locked(self._path.parent):
            self._look_again()
            pins = dict(self._pins)
            yield pins
            if [_dump(pin) for pin in pins.values()] != [_dump(pin) for pin in self._pins.values()]:
                _write(self._path, pins)
                self._pins, self._version = pins, _version(self._path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _version(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _write(path: Path, pins: dict[int, Pin]) -> None:
    entries = [_dump(pin) for _, pin in sorted(pins.items())]
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"pins": entries}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
        if os.geteuid() == 0:  # an owner who is root confirms; a proxy that is not must go on reading
            owner = (path if path.exists() else path.parent).stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    temporary.replace(path)


def _dump(pin: Pin) -> dict[str, Any]:
    keys = pin.keys
    return {
        "organization_id": keys.organization_id,
        "encryption": b64(keys.encryption),
        "signing": b64(keys.signing or b""),
        "confirmed": pin.confirmed,
        "retired": [{"signing": b64(key.signing), "until": key.until} for key in keys.retired],
        "revoked": [list(entry) for entry in keys.revoked],
        "revoked_at": pin.revoked_at,
    }


def _read(path: Path) -> dict[int, Pin]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())["pins"]
        pins = [_load(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"The file of pinned keys {path} can't be read; restore it from a back-up.") from error
    return {pin.keys.organization_id: pin for pin in pins}


def _load(entry: dict[str, Any]) -> Pin:
    """Files of earlier versions know of no retired keys and no revocations."""
    retired = tuple(RetiredKey(unb64(one["signing"]), int(one["until"])) for one in entry.get("retired", ()))
    revoked = tuple((int(user), int(before)) for user, before in entry.get("revoked", ()))
    signing = unb64(entry["signing"]) or None
    keys = OrganizationKeys(int(entry["organization_id"]), unb64(entry["encryption"]), signing, retired, revoked)
    return Pin(keys, bool(entry["confirmed"]), int(entry.get("revoked_at", 0)))
