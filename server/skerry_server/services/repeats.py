"""Requests that carry a key of the caller's own are done once: who repeats one gets the first answer again.

An answer may hold a secret, such as a new node's API key. So it is kept encrypted under the caller's key, of which the
database has a hash only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from skerry_server.errors import Conflicting, InvalidRequest
from skerry_server.models import Answered

KEPT = timedelta(days=1)
SHORTEST, LONGEST = 16, 128
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: the caller's label and key, and all that makes it this request and no other."""

    caller: str
    key: str
    request: bytes

    def __post_init__(self) -> None:
        if not SHORTEST <= len(self.key) <= LONGEST or not self.key.isascii() or not self.key.isprintable():
            raise InvalidRequest(f'"Idempotency-Key" must be {SHORTEST} to {LONGEST} ASCII characters: take a UUID.')

    def hash(self, purpose: bytes) -> bytes:
        return hashlib.sha256(b"\0".join([purpose, self.caller.encode(), self.key.encode()])).digest()

    @property
    def fingerprint(self) -> str:
        """Of the request, which may hold a password: nobody who reads the database can try what it was."""
        return hmac.digest(self.hash(b"request"), self.request, "sha256").hex()


def recall(session: Session, asked: Asked) -> tuple[Any, int] | None:
    """The body and status of the first answer. Raises Conflicting when the key came with another request."""
    found = session.scalar(select(Answered).where(Answered.key == asked.hash(b"name").hex()))
    if found is None:
        return None
    if found.request != asked.fingerprint:
        raise Conflicting("This Idempotency-Key was used for another request: take a new one for each.")
    nonce, sealed = found.answer[:_NONCE], found.answer[_NONCE:]
    body, status = json.loads(AESGCM(asked.hash(b"seal")).decrypt(nonce, sealed, None))
    return body, int(status)


def remember(session: Session, asked: Asked, body: Any, status: int, now: datetime) -> None:
    """In the transaction that did what was asked: of two at once, one loses and is repeated."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(asked.hash(b"seal")).encrypt(nonce, json.dumps([body, status]).encode(), None)
    session.add(Answered(key=asked.hash(b"name").hex(), request=asked.fingerprint, answer=nonce + sealed, at=now))
    session.flush()


def forget_old(session: Session, now: datetime) -> None:
    session.execute(delete(Answered).where(Answered.at < now - KEPT))
