"""The second factor: time-based one-time codes (RFC 6238), each taken once."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

import pyotp

_STEP_SECONDS = 30
_ISSUER = "skerry"


def new_secret() -> str:
    return pyotp.random_base32()


def address(secret: str, username: str) -> str:
    """What the picture shows that an authenticator application reads."""
    return pyotp.TOTP(secret, name=username, issuer=_ISSUER).provisioning_uri()


def used_step(secret: str, code: str, now: datetime, after: int) -> int | None:
    """The time step that the code belongs to: this one or a neighbour, but later than ``after``. None: a wrong code."""
    current = int(now.replace(tzinfo=UTC).timestamp()) // _STEP_SECONDS
    generator = pyotp.TOTP(secret)
    right = [
        step
        for step in (current - 1, current, current + 1)
        if hmac.compare_digest(generator.generate_otp(step).encode(), code.encode())
    ]
    return next((step for step in right if step > after), None)
