"""How often credentials were guessed at from an address: rows, so that all replicas count together."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from skerry_server.errors import TooManyFailures
from skerry_server.models import Failure

WINDOW = timedelta(minutes=15)


def check(session: Session, address: str, most: int, now: datetime) -> None:
    """Raises TooManyFailures when there were so many lately."""
    recent = select(func.count()).where(Failure.address == address, Failure.at > now - WINDOW)
    if (session.scalar(recent) or 0) >= most:
        raise TooManyFailures


def note(session: Session, address: str, now: datetime) -> None:
    session.add(Failure(address=address, at=now))


def forget_old(session: Session, now: datetime) -> None:
    session.execute(delete(Failure).where(Failure.at <= now - WINDOW))
