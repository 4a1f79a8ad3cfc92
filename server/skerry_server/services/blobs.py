"""Payloads that are uploaded before their task and fetched by a UUID, as vantage6's clients since 4.13 do."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from skerry.audit import What
from skerry.crypto import parse_header
from skerry.wire import MAGIC, Format
from skerry_server.blobforms import header_size
from skerry_server.errors import (
    Conflicting,
    InvalidRequest,
    NotKnown,
    NotOffered,
    PermissionDenied,
    RunOver,
    TooLarge,
)
from skerry_server.models import Payload, Run
from skerry_server.payloads import Part
from skerry_server.policy import Actor, Kind, Operation, Resource
from skerry_server.services.runs import visible_results, visible_runs
from skerry_server.trail import note

KEPT_WAITING = timedelta(days=1)
_SWEPT_AT_ONCE = 500
_EACH = 4096
"""What an upload costs beside its bytes, so that many empty ones are not free."""


def check_offered(*, offered: bool) -> None:
    """Raises NotOffered."""
    if not offered:
        raise NotOffered("This server has no blob store: send inputs with their task.")


def check_may_upload(actor: Actor) -> None:
    """Whoever may create tasks may upload their inputs. Raises RunOver or PermissionDenied."""
    if actor.run is not None and actor.run.ended:
        raise RunOver("This run has ended, so it has nothing more to upload.")
    if actor.kind is Kind.USER and not actor.scopes(Resource.TASK, Operation.CREATE):
        raise PermissionDenied


def check_new(session: Session, actor: Actor, name: uuid.UUID) -> None:
    """For an upload that its sender names. Raises Conflicting where the name is taken, else as check_may_upload."""
    check_may_upload(actor)
    if session.scalar(select(Payload.id).where(Payload.blob == str(name))) is not None:
        raise Conflicting(f"There is a payload {name} already: choose another UUID.")


def check_form(start: bytes) -> Format:
    """The format of a payload as it is stored, by its beginning. Raises InvalidRequest for a broken envelope."""
    if not start.startswith(MAGIC):
        return Format.VANTAGE6 if header_size(start) else Format.PLAIN
    try:
        parse_header(start)
    except ValueError as error:
        raise InvalidRequest(f"The payload is not a native envelope: {error}") from error
    return Format.NATIVE


def part_of(actor: Actor, name: uuid.UUID) -> Part:
    """By what the store knows an input while this caller uploads it."""
    return Part(f"inputs of {actor.label}", str(name))


def find_waiting(session: Session, actor: Actor, name: uuid.UUID) -> Payload | None:
    """One's own upload that waits for its task."""
    mine = (Payload.blob == str(name), Payload.uploader == actor.label)
    return session.scalar(select(Payload).where(*mine))


@dataclass(frozen=True, slots=True)
class Room:
    """What one caller's waiting uploads may hold, in bytes: in all, and still."""

    most: int
    left: int

    def take(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces, as long as they fit. Raises TooLarge."""
        size = 0
        for piece in pieces:
            size += len(piece)
            self.check(size)
            yield piece

    def less(self, size: int) -> Room:
        """What is left when so much is held elsewhere. Raises TooLarge when that is nothing."""
        found = Room(self.most, self.left - size)
        found.check(0)
        return found

    def check(self, size: int) -> None:
        """Raises TooLarge."""
        if size > self.left:
            raise TooLarge(
                f"What you upload ahead of tasks must not exceed {self.most} bytes, of which {max(self.left, 0)} are "
                "left: create the tasks, or wait; what no task takes is deleted after a day."
            )


def room(session: Session, actor: Actor, most: int, now: datetime) -> Room:
    """Raises TooLarge when none is left."""
    mine = (Payload.uploaded_at <= now, Payload.uploader == actor.label)
    held = select(func.coalesce(func.sum(Payload.size), 0), func.count()).where(*mine)
    size, number = session.execute(held).one()
    found = Room(most, most - int(size) - (number + 1) * _EACH)
    found.check(0)
    return found


def keep_blob(
    session: Session, actor: Actor, payload: Payload, fmt: Format, now: datetime, *, name: uuid.UUID | None = None
) -> str:
    """Notes an upload; the UUID by which its task will name it, which the uploader may choose."""
    payload.blob, payload.format = str(name or uuid.uuid4()), fmt
    payload.uploader, payload.uploaded_at = actor.label, now
    session.add(payload)
    note(session, "blob.upload", What("blob"), {"organization": actor.organization_id}, size=payload.size)
    return payload.blob


def find_blob(session: Session, actor: Actor, name: uuid.UUID) -> Payload:
    """One's own upload that waits, or the input or result of a run that one may see. Raises NotKnown."""
    payload = session.scalar(select(Payload).where(Payload.blob == str(name)))
    if payload is None or not (payload.uploader == actor.label or _belongs(session, actor, payload.id)):
        raise NotKnown("blob", name)
    return payload


def run_of(session: Session, payload: Payload) -> int | None:
    """The id of the run that a blob belongs to, if its task is there already."""
    return session.scalar(select(Run.id).where(or_(Run.input_id == payload.id, Run.result_id == payload.id)))


def remove_waiting(session: Session, now: datetime) -> Sequence[Payload]:
    """Deletes uploads whose tasks never came; their files are the caller's to remove."""
    old = (Payload.uploader.is_not(None), Payload.uploaded_at <= now - KEPT_WAITING)
    payloads = session.scalars(select(Payload).where(*old).limit(_SWEPT_AT_ONCE)).all()
    for payload in payloads:
        session.delete(payload)
    return payloads


def _belongs(session: Session, actor: Actor, payload_id: int) -> bool:
    inputs = select(Run.id).where(Run.input_id == payload_id, visible_runs(actor))
    results = select(Run.id).where(Run.result_id == payload_id, visible_results(actor))
    return session.scalar(inputs.union(results).limit(1)) is not None
