"""Pinned keys: what this node or client has once believed about organizations' keys, and keeps to.

One JSON file, mode 0600, replaced as a whole at each change.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerry.errors import ConfigurationError, KeyChanged, KeyNotConfirmed
from skerry.keys import OrganizationKeys
from skerry.wire import b64, unb64


@dataclass(frozen=True, slots=True)
class Pin:
    """The keys of one organization, and whether an owner has confirmed them."""

    keys: OrganizationKeys
    confirmed: bool


class Pins:
    """The pins of one file. Safe for threads; one process at a time."""

    def __init__(self, path: Path, *, require_confirmed: bool = False) -> None:
        self._path = path
        self._require_confirmed = require_confirmed
        self._lock = threading.Lock()
        self._pins = _read(path)

    def trust(self, keys: OrganizationKeys) -> OrganizationKeys:
        """The keys, now pinned. Raises KeyChanged for others than the pinned ones, KeyNotConfirmed by policy."""
        with self._lock:
            pin = self._pins.get(keys.organization_id)
            if pin is None:
                pin = self._pins[keys.organization_id] = Pin(keys, confirmed=False)
                self._write()
        if pin.keys != keys:
            raise KeyChanged(
                f"The server shows other keys for organization {keys.organization_id} than before (now "
                f"{keys.fingerprint}). Ask that organization whether it changed them, then `skerry key confirm`."
            )
        if self._require_confirmed and not pin.confirmed:
            raise KeyNotConfirmed(
                f"The keys of organization {keys.organization_id} ({keys.fingerprint}) are not confirmed yet: "
                "compare them with that organization, then `skerry key confirm`."
            )
        return pin.keys

    def get(self, organization_id: int) -> OrganizationKeys | None:
        """The pinned keys, if they may be used: None when there are none or they lack the confirmation required."""
        with self._lock:
            pin = self._pins.get(organization_id)
        return pin.keys if pin is not None and (pin.confirmed or not self._require_confirmed) else None

    def confirm(self, keys: OrganizationKeys) -> None:
        """An owner's word: these are the keys from now on."""
        with self._lock:
            self._pins[keys.organization_id] = Pin(keys, confirmed=True)
            self._write()

    def all(self) -> list[Pin]:
        with self._lock:
            return [self._pins[organization_id] for organization_id in sorted(self._pins)]

    def _write(self) -> None:
        entries = [_dump(pin) for _, pin in sorted(self._pins.items())]
        temporary = self._path.with_name(f"{self._path.name}.new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"pins": entries}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _dump(pin: Pin) -> dict[str, Any]:
    return {
        "organization_id": pin.keys.organization_id,
        "encryption": b64(pin.keys.encryption),
        "signing": b64(pin.keys.signing or b""),
        "confirmed": pin.confirmed,
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
    signing = unb64(entry["signing"]) or None
    keys = OrganizationKeys(int(entry["organization_id"]), unb64(entry["encryption"]), signing)
    return Pin(keys, bool(entry["confirmed"]))
