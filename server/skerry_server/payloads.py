"""Where inputs and results lie: in their row up to the wire's inline limit, else as a file beside the database.

A file is on the disk, its name included, before the row that names it is written; so a committed row always has its
bytes. A file without a row is left over from an interrupted request and is swept away at a later start. Several
processes of one server share the folder.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy import select
from sqlalchemy.orm import Session

from skerry.wire import INLINE_LIMIT
from skerry_server.errors import TooLarge
from skerry_server.models import Payload

_CHUNK = 256 * 1024
_ABANDONED_SECONDS = 3600
"""A file that nothing was written to for so long, and that no row names, never will be named."""


class PayloadStore:
    """The folder of the large ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, pieces: Iterable[bytes], limit: int) -> Payload:
        """Writes the bytes down, in constant memory; the row is the caller's to add. Raises TooLarge."""
        head, rest = bytearray(), iter(pieces)
        for piece in rest:
            head += piece
            if len(head) > min(INLINE_LIMIT, limit):
                return self._write(_chain(bytes(head), rest), limit)
        return Payload(size=len(head), inline=bytes(head))

    def read(self, payload: Payload) -> Iterator[bytes]:
        """The bytes again, piece by piece; the file is open when this returns."""
        if payload.file is None:
            return iter([payload.inline or b""])
        file = (self._folder / payload.file).open("rb")

        def pieces() -> Iterator[bytes]:
            with file:
                while piece := file.read(_CHUNK):
                    yield piece

        return pieces()

    def is_usable(self) -> bool:
        """Whether the folder is there and can be written to."""
        return os.access(self._folder, os.R_OK | os.W_OK | os.X_OK)

    def load(self, payload: Payload) -> bytes:
        return b"".join(self.read(payload))

    def start(self, payload: Payload, size: int) -> bytes:
        """The first bytes, at most ``size``."""
        if payload.file is None:
            return (payload.inline or b"")[:size]
        with (self._folder / payload.file).open("rb") as file:
            return file.read(size)

    def forget(self, payload: Payload) -> None:
        """Removes the file of a payload whose row is gone."""
        self.remove(payload.file)

    def remove(self, file: str | None) -> None:
        """Removes a file that no row names any more."""
        if file is not None:
            (self._folder / file).unlink(missing_ok=True)

    def sweep(self, session: Session) -> None:
        """Removes files that no row names, and that nobody is writing."""
        old = time.time() - _ABANDONED_SECONDS
        for batch in _batches(sorted(path.name for path in self._folder.iterdir() if _written(path) < old)):
            known = set(session.scalars(select(Payload.file).where(Payload.file.in_(batch))))
            for name in set(batch) - known:
                (self._folder / name).unlink(missing_ok=True)

    def _write(self, pieces: Iterable[bytes], limit: int) -> Payload:
        name = uuid.uuid4().hex
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                size = _copy(pieces, file, limit)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self._folder)
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return Payload(size=size, file=name)


def _copy(pieces: Iterable[bytes], file: IO[bytes], limit: int) -> int:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The payload is larger than the {limit} bytes that this server takes.")
        file.write(piece)
    return size


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path) -> float:
    """When the file was last written to; for one that is gone meanwhile, never mind."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _batches(names: list[str], size: int = 500) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
