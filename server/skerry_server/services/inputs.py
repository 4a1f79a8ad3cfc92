"""The inputs of a new task: in the request, or uploaded before; and what a collaboration accepts of them."""

from __future__ import annotations

import codecs
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from skerry.crypto import parse_header
from skerry.wire import Context, Format, detect_format, unb64, unb64_pieces
from skerry_server.errors import InvalidRequest
from skerry_server.models import Collaboration, Payload, Task
from skerry_server.payloads import PayloadStore
from skerry_server.policy import Actor, Kind

_IV_BYTES = 16
_MINIMUM_WRAPPED = 128
_HEADER_BYTES = (1 << 20) + 8
_PIECE = 1 << 20
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ACCEPTED = {
    "native": {Format.NATIVE},
    "vantage6": {Format.VANTAGE6},
    "both": {Format.NATIVE, Format.VANTAGE6},
}


@dataclass(frozen=True, slots=True)
class Target:
    """One organization and its input: the string of the wire, or the UUID of what was uploaded."""

    organization_id: int
    input: str

    @property
    def names_a_blob(self) -> bool:
        """By its shape: a UUID has hyphens, which base64 does not."""
        return _UUID.fullmatch(self.input) is not None


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes the task, and from where; ``named``: whether the task's UUID came with the request."""

    actor: Actor
    parent: Task | None
    named: bool


@dataclass(frozen=True, slots=True)
class Given:
    """An input as it was found: ``text`` from the request, or ``blob``, which waited for this task."""

    organization_id: int
    format: Format
    text: str = ""
    blob: Payload | None = None

    @property
    def where(self) -> str:
        return f'The "input" of organization {self.organization_id}'

    def keep(self, store: PayloadStore) -> Payload:
        """The payload of the run; a blob waits no more."""
        if self.blob is None:
            pieces = _pieces(self.text)
            stored = pieces if self.format is Format.VANTAGE6 else unb64_pieces(pieces)
            return store.keep(stored, len(self.text))
        self.blob.uploader = self.blob.uploaded_at = None
        return self.blob


def take_inputs(
    session: Session,
    maker: Maker,
    targets: Sequence[Target],
    task: Task,
    collaboration: Collaboration,
    *,
    store: PayloadStore,
) -> list[Given]:
    """The inputs, checked; ``task`` gets their format. What a collaboration does not accept reaches no node.

    Raises InvalidRequest, which names the organization at fault.
    """
    _refuse_twice(targets)
    found = [_find(session, maker.actor, target) for target in targets]
    task.format = _one_format(collaboration, {given.format for given in found})
    for given in found:
        _check(maker, given, task, store)
    return found


def _refuse_twice(targets: Sequence[Target]) -> None:
    names = [target.input.lower() for target in targets if target.names_a_blob]
    if len(set(names)) != len(names):
        raise InvalidRequest('Two organizations can\'t have the same blob as "input": upload one for each.')


def _find(session: Session, actor: Actor, target: Target) -> Given:
    if not target.names_a_blob:
        return Given(target.organization_id, detect_format(target.input), target.input)
    name = str(uuid.UUID(target.input))
    mine = (Payload.blob == name, Payload.uploader == actor.label)
    blob = session.scalar(select(Payload).where(*mine).with_for_update())
    if blob is None or blob.format is None:
        raise InvalidRequest(
            f'The "input" of organization {target.organization_id} names a blob that is not there, is not yours, '
            "or has been used: upload one for each organization."
        )
    return Given(target.organization_id, blob.format, blob=blob)


def _one_format(collaboration: Collaboration, formats: set[Format]) -> Format:
    if len(formats) != 1:
        raise InvalidRequest("The inputs of one task must all have the same format.")
    format_ = formats.pop()
    accepted = _ACCEPTED[collaboration.accept] if collaboration.encrypted else {Format.PLAIN}
    if format_ not in accepted:
        raise InvalidRequest(_wrong_format(collaboration, format_))
    return format_


def _wrong_format(collaboration: Collaboration, format_: Format) -> str:
    if not collaboration.encrypted:
        return f'Collaboration {collaboration.id} is not encrypted, so "input" must be base64 of the plain input.'
    kinds = " or ".join(sorted(_ACCEPTED[collaboration.accept]))
    return (
        f'Collaboration {collaboration.id} is encrypted and accepts {kinds}, but "input" is {format_}: '
        "set up encryption at the client."
    )


def _check(maker: Maker, given: Given, task: Task, store: PayloadStore) -> None:
    if given.format is Format.NATIVE:
        if not maker.named:
            raise InvalidRequest('An encrypted native input is bound to its task, so "uuid" is needed.')
        _check_context(_context(given, store), _expected(maker, given, task), given.where)
    elif given.blob is not None:
        return  # looked at when it was uploaded
    elif given.format is Format.VANTAGE6:
        _check_vantage6(given)
    else:
        _check_plain(given)


def _context(given: Given, store: PayloadStore) -> Context:
    try:
        if given.blob is None:
            start = unb64(given.text[: (_HEADER_BYTES * 4 // 3 + 8) // 4 * 4])
        else:
            start = store.start(given.blob, _HEADER_BYTES)
        return parse_header(start).context
    except ValueError as error:
        raise InvalidRequest(f"{given.where} is not a native envelope: {error}") from error


def _expected(maker: Maker, given: Given, task: Task) -> dict[str, Any]:
    return {
        "direction": "input",
        "task": task.uuid,
        "parent": maker.parent.uuid if maker.parent is not None else None,
        "collaboration": task.collaboration_id,
        "sender": maker.actor.organization_id,
        "user": maker.actor.id if maker.actor.kind is Kind.USER else None,
        "recipient": given.organization_id,
        "image": task.image,
        "databases": tuple(task.databases),
        "attempt": None,
    }


def _check_context(context: Context, expected: dict[str, Any], where: str) -> None:
    for name, value in expected.items():
        if getattr(context, name) != value:
            raise InvalidRequest(f'{where} was sealed for another "{name}" than this task has.')


def _check_vantage6(given: Given) -> None:
    """Refuses what only looks like an encrypted text: three fields of which the first two have the right sizes."""
    end_of_iv = given.text.index("$", given.text.index("$") + 1)
    try:
        wrapped, iv = (unb64(part) for part in given.text[:end_of_iv].split("$"))
        for _ in unb64_pieces(_pieces(given.text, end_of_iv + 1)):
            pass
    except ValueError as error:
        raise InvalidRequest(f"{given.where} is not an encrypted text of vantage6's format.") from error
    if len(wrapped) < _MINIMUM_WRAPPED or len(iv) != _IV_BYTES:
        raise InvalidRequest(f"{given.where} is not an encrypted text of vantage6's format.")


def _check_plain(given: Given) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in unb64_pieces(_pieces(given.text)):
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except ValueError as error:
        raise InvalidRequest(f"{given.where} must be base64 of UTF-8 text.") from error


def _pieces(text: str, start: int = 0) -> Iterator[bytes]:
    """Of a text that can be large: each copy of the whole would count. Reading on raises ValueError for no ASCII."""
    for place in range(start, len(text), _PIECE):
        yield text[place : place + _PIECE].encode("ascii")
