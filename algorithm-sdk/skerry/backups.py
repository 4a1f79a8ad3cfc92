"""Copies of key files that only a passphrase opens: scrypt and AES-256-GCM. Bytes in, bytes out."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from skerry.errors import KeyFileError
from skerry.wire import b64, canonical, unb64

MINIMUM_PASSPHRASE = 12
_VERSION = 1
# 128 MiB and about half a second for each guess.
_COST, _BLOCKS, _LANES = 2**17, 8, 1
_KEY_BYTES, _SALT_BYTES, _NONCE_BYTES = 32, 16, 12
_PURPOSE = b"skerry backup v1\0"
_TEXT = re.compile(rb"-----BEGIN SKERRY BACKUP-----\s(.*?)-----END SKERRY BACKUP-----", re.DOTALL)


def lock(content: bytes, passphrase: str) -> bytes:
    """Raises KeyFileError for a passphrase that is too short to protect anything."""
    if len(passphrase) < MINIMUM_PASSPHRASE:
        raise KeyFileError(f"The passphrase must have at least {MINIMUM_PASSPHRASE} characters; a few words are best.")
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_derive(passphrase, salt)).encrypt(nonce, content, _PURPOSE)
    body = b64(canonical({"v": _VERSION, "salt": b64(salt), "nonce": b64(nonce), "content": b64(sealed)}))
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN SKERRY BACKUP-----\n{lines}\n-----END SKERRY BACKUP-----\n".encode()


def unlock(backup: bytes, passphrase: str) -> bytes:
    """Raises KeyFileError for what is no back-up, and for a wrong passphrase or an altered one alike."""
    value = _parse(backup)
    try:
        salt, nonce, sealed = (unb64(value[name]) for name in ("salt", "nonce", "content"))
        return AESGCM(_derive(passphrase, salt)).decrypt(nonce, sealed, _PURPOSE)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise KeyFileError("This back-up is malformed.") from error
    except InvalidTag as error:
        raise KeyFileError("The passphrase is wrong, or the back-up was altered.") from error


def _parse(backup: bytes) -> dict[str, Any]:
    found = _TEXT.search(backup)
    try:
        value = json.loads(unb64("".join(found[1].decode("ascii").split()))) if found else None
    except ValueError as error:
        raise KeyFileError("This back-up is malformed.") from error
    if not isinstance(value, dict) or value.get("v") != _VERSION:
        raise KeyFileError("This is not a back-up that `skerry key backup` of this version made.")
    return value


def _derive(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt, _KEY_BYTES, _COST, _BLOCKS, _LANES).derive(passphrase.encode())
