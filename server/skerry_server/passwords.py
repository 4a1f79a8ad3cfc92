"""Passwords: how they are kept (argon2id), and what makes one acceptable."""

from __future__ import annotations

import re
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from skerry_server.errors import InvalidRequest

MINIMUM = 8
MAXIMUM = 128
_NEEDED = {"a lower-case letter": r"[a-z]", "an upper-case letter": r"[A-Z]", "a digit": r"\d", "a sign": r"[^\w\s]|_"}
# Cost as OWASP's cheat sheet on password storage asks; one lane, since logins run beside each other anyway.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def check_strength(password: str) -> None:
    """Raises InvalidRequest that says what is missing."""
    missing = [what for what, pattern in _NEEDED.items() if not re.search(pattern, password)]
    if not MINIMUM <= len(password) <= MAXIMUM:
        missing.insert(0, f"{MINIMUM} to {MAXIMUM} characters")
    if missing:
        raise InvalidRequest(f"The password is too weak, it needs: {', '.join(missing)}.", {"password": missing})


def hash_password(password: str) -> str:
    return _HASHER.hash(password)


def verify_password(hashed: str | None, password: str) -> bool:
    """Takes the same time whether there is a hash to compare with or not."""
    try:
        return _HASHER.verify(hashed or _nobodys(), password) and hashed is not None
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobodys() -> str:
    return _HASHER.hash("nobody")
