"""Proving who one is: users by password and one-time code, nodes by API key."""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, joinedload, selectinload

from skerry.audit import What, Who
from skerry_server import codes, locks, passwords
from skerry_server.errors import InvalidRequest, LoginFailed, PermissionDenied, UnknownKey
from skerry_server.models import Node, User
from skerry_server.policy import Actor
from skerry_server.services.actors import NO_MEMBER, is_member
from skerry_server.trail import NOBODY, act_as, note

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


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The secret that the user's authenticator application takes; shown this once."""

    secret: str
    address: str


class Missing(Enum):
    """What a log-in lacks. A value and not an exception, so that the count of failures is committed."""

    PASSWORD = auto()
    CODE = auto()
    RIGHT_CODE = auto()


def credentials(
    session: Session, now: datetime, *, username: str | None = None, email: str | None = None, id_: int | None = None
) -> Credentials:
    user = find_user(session, username=username, email=email, id_=id_)
    if user is None:
        return Credentials(None, None, locked=False)
    return Credentials(user.id, user.password, _shut_out(user, now) is not None)


def find_user(
    session: Session, *, username: str | None = None, email: str | None = None, id_: int | None = None
) -> User | None:
    """By the first of these that is given."""
    if id_ is not None:
        return session.get(User, id_)
    by = User.username == username if username is not None else User.email == email
    return session.scalar(select(User).where(by))


def log_in(
    session: Session, found: Credentials, *, right: bool, code: str | None, two_factors: bool, now: datetime
) -> User | Enrolment | Missing:
    """Counts a failure, or gives the user; with ``two_factors`` a secret first, and later only for a right code."""
    user = prove_password(session, found, right=right, now=now)
    if user is None:
        return Missing.PASSWORD
    if two_factors and user.otp_secret is None:
        return enrol(user)
    if two_factors and not code:
        _note(session, "login.ask_code", user)
        return Missing.CODE
    if two_factors and not _prove_code(session, user, code or "", now):
        return Missing.RIGHT_CODE
    user.failed_logins, user.locked_until, user.last_seen = 0, None, now
    _note(session, "login.succeed", user)
    return user


def prove_password(session: Session, found: Credentials, *, right: bool, now: datetime) -> User | None:
    """The user, or None after counting the failure. Earlier failures stay counted until all factors are there."""
    act_as(session, NOBODY)
    user = locks.row(session, User, found.user_id, options=[selectinload(User.roles)]) if found.user_id else None
    why = "no such user" if user is None else _shut_out(user, now)
    if user is None or why is not None:
        _note(session, "login.fail", user, why=str(why))
        return None
    if not right or user.password != found.hashed:
        _note(session, "login.fail", user, why="password")
        _count_failure(user, now)
        return None
    act_as(session, Who("user", user.id, user.organization_id))
    return user


def enrol(user: User) -> Enrolment:
    """Gives the user a new second factor in place of the old one."""
    user.otp_secret, user.otp_step = codes.new_secret(), 0
    return Enrolment(user.otp_secret, codes.address(user.otp_secret, user.username))


def set_password(user: User, password: str) -> None:
    """All tokens of the earlier password are dead. Raises InvalidRequest for a weak one."""
    passwords.check_strength(password)
    user.password, user.epoch = passwords.hash_password(password), user.epoch + 1
    user.failed_logins, user.locked_until = 0, None


def change_password(session: Session, found: Credentials, new: str, *, right: bool, now: datetime) -> bool:
    """False for a wrong current password, which counts as a failed log-in. Raises InvalidRequest for a weak new one."""
    user = prove_password(session, found, right=right, now=now)
    if user is None:
        return False
    if passwords.verify_password(user.password, new):
        raise InvalidRequest("The new password is the same as the current one: choose another.")
    set_password(user, new)
    return True


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
    """The first use of a rotated key ends the one before.

    Raises UnknownKey, and PermissionDenied where the organization has left the collaboration: the key is no guess.
    """
    act_as(session, NOBODY)
    digest = digest_api_key(api_key)
    node = session.scalar(
        select(Node).where(or_(Node.api_key == digest, Node.next_api_key == digest)).with_for_update(key_share=True)
    )
    if node is None:
        raise UnknownKey("Api key is not recognized!")
    if not is_member(session, node.collaboration_id, node.organization_id):
        raise PermissionDenied(NO_MEMBER)
    if node.next_api_key == digest:
        node.api_key, node.next_api_key, node.epoch = digest, None, node.epoch + 1
    act_as(session, Who("node", node.id, node.organization_id))
    belongs = {"organization": node.organization_id, "collaboration": node.collaboration_id}
    note(session, "login.succeed", What("node", node.id), belongs)
    return node


def note_refresh(session: Session, actor: Actor) -> None:
    """Records that a refresh token was exchanged for new tokens."""
    note(session, "token.refresh", What(str(actor.kind), actor.id), {"organization": actor.organization_id})


def new_api_key() -> str:
    """A UUID, since that is what nodes' configurations hold; all of it is random enough to need no slow hash."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def digest_api_key(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()


def _shut_out(user: User, now: datetime) -> str | None:
    """Why nobody logs in as this user now, whatever they show; None where they may."""
    if user.disabled:
        return "disabled"
    return "locked" if user.locked_until is not None and user.locked_until > now else None


def _note(session: Session, action: str, user: User | None, **details: str) -> None:
    """Never what was typed as a name: people type passwords there."""
    belongs = {"organization": user.organization_id} if user is not None else {}
    note(session, action, What("user", user.id if user is not None else None), belongs, **details)


def _prove_code(session: Session, user: User, code: str, now: datetime) -> bool:
    step = codes.used_step(user.otp_secret or "", code, now, user.otp_step)
    if step is None:
        _note(session, "login.fail", user, why="code")
        _count_failure(user, now)
        return False
    user.otp_step = step
    return True


def _count_failure(user: User, now: datetime) -> None:
    user.failed_logins += 1
    _LOG.warning("user %s: wrong password", user.id)
    if user.failed_logins >= ATTEMPTS:
        user.failed_logins, user.locked_until = 0, now + LOCKED_FOR
