"""Proving who one is: users by password, nodes by API key."""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from skerry_server import passwords
from skerry_server.errors import LoginFailed
from skerry_server.models import Node, User

_LOG = logging.getLogger(__name__)
ATTEMPTS = 5
LOCKED_FOR = timedelta(minutes=15)
_FAILED = "Failed to login"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is needed to check a password outside of a transaction, since that takes a while."""

    user_id: int | None
    hashed: str | None
    locked: bool


def credentials(session: Session, username: str, now: datetime) -> Credentials:
    user = session.scalar(select(User).where(User.username == username))
    if user is None:
        return Credentials(None, None, locked=False)
    return Credentials(user.id, user.password, _locked(user, now))


def log_in(session: Session, found: Credentials, *, right: bool, now: datetime) -> User | None:
    """Counts a failure, or gives the user. None and not an exception on failure, so that the count is committed."""
    user = session.get(User, found.user_id, options=[selectinload(User.roles)]) if found.user_id else None
    if user is None or _locked(user, now):
        return None
    if not right or user.password != found.hashed:
        _count_failure(user, now)
        return None
    user.failed_logins, user.locked_until, user.last_seen = 0, None, now
    return user


def check(found: Credentials, password: str) -> bool:
    """Takes as long for a name that nobody has as for a wrong password."""
    return passwords.verify_password(found.hashed, password) and not found.locked


def refused() -> LoginFailed:
    """The one answer to every failed log-in."""
    return LoginFailed(_FAILED)


def user_by_id(session: Session, user_id: int) -> User:
    """Raises LoginFailed when the user is gone."""
    user = session.get(User, user_id, options=[selectinload(User.roles), joinedload(User.organization)])
    if user is None:
        raise refused()
    return user


def log_in_node(session: Session, api_key: str) -> Node:
    """Raises LoginFailed."""
    node = session.scalar(select(Node).where(Node.api_key == digest_api_key(api_key)))
    if node is None:
        raise LoginFailed("Api key is not recognized!")
    return node


def new_api_key() -> str:
    """A UUID, since that is what nodes' configurations hold; all of it is random enough to need no slow hash."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def digest_api_key(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()


def _locked(user: User, now: datetime) -> bool:
    return user.locked_until is not None and user.locked_until > now


def _count_failure(user: User, now: datetime) -> None:
    user.failed_logins += 1
    _LOG.warning("user %s: wrong password", user.id)
    if user.failed_logins >= ATTEMPTS:
        user.failed_logins, user.locked_until = 0, now + LOCKED_FOR
