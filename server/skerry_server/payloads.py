"""Where inputs and results lie: in their row up to the wire's inline limit, else among the objects beside it.

An object is kept for good, its name included, before the row that names it is written; so a committed row always has
its bytes. One without a row is left over from an interrupted request and is swept away at a later start. What is under
way lies in a folder, as parts: an upload that broke off its sender may go on with for a day. Several processes of one
server share the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from sqlalchemy import select
from sqlalchemy.orm import Session

from skerry.uncached import Writer
from skerry.wire import INLINE_LIMIT
from skerry_server.errors import Busy, Damaged, InvalidRequest, TooLarge
from skerry_server.models import Payload
from skerry_server.objects import PART, FileObjects, Objects

_LOG = logging.getLogger(__name__)
_ABANDONED_SECONDS = 3600
"""An object that was not written to for so long, and that no row names, never will be named."""
_PARTS_KEPT = 24 * 3600
_EACH = 4096
"""What a part costs beside its bytes."""
_RESERVE, _RESERVED_SHARE = 64 << 20, 20
"""So many bytes of the disk, at most a twentieth of it, are not for payloads."""


@dataclass(frozen=True, slots=True)
class Part:
    """An upload that is under way: whose it is, and which of theirs."""

    owner: str
    key: str

    @property
    def name(self) -> str:
        return f"{PART}{_digest(self.owner)}-{_digest(self.key)}"


@dataclass(frozen=True, slots=True)
class Span:
    """Which bytes of a payload of ``size`` an upload brings: those from ``start`` on.

    ``size`` None: all up to the upload's end, which is the payload's.
    """

    start: int
    size: int | None


class PayloadStore:
    """``folder``: of uploads under way, made where it is missing; ``objects``: where the large ones then lie."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.objects = objects

    @classmethod
    def of_files(cls, folder: Path) -> PayloadStore:
        """All in one folder."""
        return cls(folder, FileObjects(folder))

    def keep(self, pieces: Iterable[bytes], limit: int) -> Payload:
        """Writes the bytes down, in constant memory; the row is the caller's to add. Raises TooLarge."""
        head, size, rest = list[bytes](), 0, iter(pieces)
        for piece in rest:
            head.append(piece)
            size += len(piece)
            if size > min(INLINE_LIMIT, limit):
                return self._write(itertools.chain(head, rest), limit)
        return Payload(size=size, inline=b"".join(head))

    def received(self, part: Part) -> int:
        """How many bytes have come of it."""
        try:
            return (self._folder / part.name).stat().st_size
        except FileNotFoundError:
            return 0

    def held(self, owner: str, besides: Part) -> int:
        """The bytes of all the owner's parts but that one."""
        found = [path for path in self._parts(owner) if path.name != besides.name]
        return sum(path.stat().st_size + _EACH for path in found if path.exists())

    def drop_others(self, part: Part) -> None:
        """Removes the owner's other parts."""
        for path in self._parts(part.owner):
            if path.name != part.name:
                path.unlink(missing_ok=True)

    def _parts(self, owner: str) -> Iterator[Path]:
        return self._folder.glob(f"{PART}{_digest(owner)}-*")

    def receive(self, part: Part, pieces: Iterable[bytes], span: Span, limit: int) -> Payload | None:
        """Adds to the part, which outlives an upload that breaks off; the payload once it is whole.

        Its row is the caller's to add. Raises TooLarge, InvalidRequest, or Busy while another upload of it goes on.
        """
        _check_limit(span.size or 0, limit)
        path = self._folder / part.name
        with _held(path) as file:
            have = os.fstat(file.fileno()).st_size
            if span.start > (have if span.size is None else min(have, span.size)):
                raise InvalidRequest(f'"start" must not be more than the {have} bytes that have come.')
            have = _append(pieces, file, span, limit)
            if span.size is not None and have < span.size:
                return None
            return self._adopt(path, have)

    def read(self, payload: Payload, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes again, piece by piece, from ``start`` up to ``end``; they are there when this returns.

        Raises Damaged when they are not what was kept.
        """
        if payload.file is None:
            return iter([(payload.inline or b"")[start:end]])
        with _noting_damage(payload.file, payload.size):
            return self.objects.read(payload.file, payload.size, start, payload.size if end is None else end)

    def offer(self, payload: Payload) -> Callable[[], Iterator[bytes]]:
        """Gives all the bytes when it is called, which may be after the transaction; nothing is held open till then.

        Raises Damaged when they are not what was kept: at once, and again if that has come about meanwhile.
        """
        if payload.file is None:
            return partial(iter, [payload.inline or b""])
        name, size = payload.file, payload.size
        with _noting_damage(name, size):
            self.objects.check(name, size)
        return partial(self.objects.read, name, size, 0, size)

    def is_usable(self) -> bool:
        """Whether uploads could be taken now."""
        return os.access(self._folder, os.R_OK | os.W_OK | os.X_OK) and self.objects.is_usable()

    def load(self, payload: Payload) -> bytes:
        return b"".join(self.read(payload))

    def start(self, payload: Payload, size: int) -> bytes:
        """The first bytes, at most ``size``."""
        return b"".join(self.read(payload, 0, min(size, payload.size)))

    def forget(self, payload: Payload) -> None:
        """Removes the object of a payload whose row is gone."""
        self.remove(payload.file)

    def remove(self, name: str | None) -> None:
        """Removes an object that no row names any more; while its store is away, a later start does."""
        if name is not None:
            with _put_off():
                self.objects.remove(name)

    def sweep(self, reading: Callable[[], AbstractContextManager[Session]]) -> None:
        """Removes objects that no row names, and uploads with which nobody went on."""
        self.sweep_parts()
        with _put_off():
            for batch in _batches(self.objects.unchanged_since(time.time() - _ABANDONED_SECONDS)):
                with reading() as session:
                    known = set(session.scalars(select(Payload.file).where(Payload.file.in_(batch))))
                for name in set(batch) - known:
                    self.objects.remove(name)

    def sweep_parts(self) -> None:
        """Removes uploads with which nobody went on."""
        oldest = time.time() - _PARTS_KEPT
        for path in filter(_is_part, self._folder.iterdir()):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _adopt(self, path: Path, size: int) -> Payload:
        """Makes a whole part a payload."""
        if size <= INLINE_LIMIT:
            payload = Payload(size=size, inline=path.read_bytes())
            path.unlink()
            return payload
        name = self.objects.new_name()
        self.objects.adopt(path, name)
        return Payload(size=size, file=name)

    def _write(self, pieces: Iterable[bytes], limit: int) -> Payload:
        draft = self._folder / f"{PART}{uuid.uuid4().hex}"
        try:
            with _held(draft) as file:
                return self._adopt(draft, _append(pieces, file, Span(0, None), limit))
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextmanager
def _noting_damage(name: str, size: int) -> Iterator[None]:
    try:
        yield
    except Damaged:
        _LOG.error("the object %s is not there, or has not its %d bytes any more", name, size)
        raise


@contextmanager
def _put_off() -> Iterator[None]:
    """What has no row is in nobody's way."""
    try:
        yield
    except Busy as error:
        _LOG.warning("what no row names is removed at a later start: %s", error)


@contextmanager
def _held(path: Path) -> Iterator[IO[bytes]]:
    """The file, which nobody else writes to meanwhile. Raises Busy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        if not _lock(descriptor) or not _leads_to(path, descriptor):
            raise Busy("Another upload of this payload is under way: try again in a moment.")
        yield file


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the open file has still that name: it may just have become a payload."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _append(pieces: Iterable[bytes], file: IO[bytes], span: Span, limit: int) -> int:
    """How many bytes there are then; what came before a break stays."""
    file.truncate(span.start)
    have = span.start
    with Writer(file.fileno(), have) as writer:
        for piece in pieces:
            have += len(piece)
            _check_limit(have, limit)
            if span.size is not None and have > span.size:
                raise InvalidRequest('More bytes came than "size" says.')
            _check_room(file.fileno(), len(piece))
            writer.write(piece)
    return have


def _check_limit(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"The payload is larger than the {limit} bytes that this server takes.")


def _check_room(descriptor: int, coming: int) -> None:
    """The last of the disk is for the rows of all others: an upload that finds no room stays, and is tried again.

    Raises OSError, as a full disk does.
    """
    disk = os.fstatvfs(descriptor)
    reserve = min(_RESERVE, disk.f_blocks * disk.f_frsize // _RESERVED_SHARE)
    if reserve and disk.f_bavail * disk.f_frsize - coming < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_part(path: Path) -> bool:
    return path.name.startswith(PART)


def _batches(names: Iterator[str], size: int = 500) -> Iterator[list[str]]:
    while batch := list(itertools.islice(names, size)):
        yield batch
