"""The secret for making the first user from another machine: a file in the state folder, good once."""

from __future__ import annotations

import hmac
import logging
import secrets
from pathlib import Path

from skerry_server.keepsakes import kept

_LOG = logging.getLogger(__name__)
_FILE = "bootstrap-secret"


def offer(state: Path) -> None:
    """Makes the secret, unless an earlier start did, and says where it lies. Raises ConfigurationError."""
    path = state / _FILE
    kept(path, lambda: secrets.token_urlsafe(32))
    _LOG.warning("There are no users yet: who has the secret in %s makes the first one (skerry server bootstrap)", path)


def withdraw(state: Path) -> None:
    """From now on no secret is good."""
    (state / _FILE).unlink(missing_ok=True)


def is_good(state: Path, secret: str) -> bool:
    """Whether this is the secret."""
    try:
        wanted = (state / _FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False
    return bool(wanted) and hmac.compare_digest(wanted.encode(), secret.strip().encode())
