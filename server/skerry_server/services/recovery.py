"""Getting back in after a lost password or a lost second factor, by a token that goes out by mail.

A token carries the user's ``epoch``, which its use counts on: so it works once.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from skerry.audit import Who
from skerry_server import locks
from skerry_server.errors import LetterTokenRefused
from skerry_server.models import User
from skerry_server.services import login
from skerry_server.trail import act_as

ONE_LETTER_IN = timedelta(minutes=60)


def may_be_written_to(user: User | None, now: datetime) -> bool:
    """At most one letter an hour and user, none to a disabled one; notes that one goes out now."""
    if user is None or user.disabled or (user.mailed_at is not None and user.mailed_at > now - ONE_LETTER_IN):
        return False
    user.mailed_at = now
    return True


def reset_password(session: Session, user_id: int, epoch: int, password: str) -> None:
    """Raises LetterTokenRefused for a token that was used, InvalidRequest for a weak password."""
    login.set_password(_holder(session, user_id, epoch), password)


def reset_second_factor(session: Session, user_id: int, epoch: int) -> login.Enrolment:
    """Raises LetterTokenRefused for a token that was used."""
    user = _holder(session, user_id, epoch)
    user.epoch += 1
    return login.enrol(user)


def _holder(session: Session, user_id: int, epoch: int) -> User:
    user = locks.row(session, User, user_id)
    if user is None or user.epoch != epoch:
        raise LetterTokenRefused
    act_as(session, Who("user", user.id, user.organization_id))
    return user
