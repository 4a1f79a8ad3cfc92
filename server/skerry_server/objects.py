"""Where whole payloads lie that are too large for their row: what a store of them must do, and the one of files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from skerry import uncached
from skerry_server.errors import Damaged

PIECE = 1024 * 1024
PART = "part-"
"""How the names of uploads under way begin, which lie in a folder of the server's own in any case."""


class Objects(Protocol):
    """Keeps bytes by a name. Any method may raise OSError, or Busy when it is away."""

    def new_name(self) -> str:
        """One that no other object has, of this server or another."""

    def adopt(self, draft: Path, name: str) -> None:
        """Takes a file, which has no other name then: when this returns the bytes outlive a failure of power."""

    def read(self, name: str, size: int, start: int, end: int) -> Iterator[bytes]:
        """These bytes of an object of that size, piece by piece. Raises Damaged before this returns where it is not."""

    def check(self, name: str, size: int) -> None:
        """Raises Damaged where there is no object of that name and size."""

    def remove(self, name: str) -> None:
        """Nothing happens when there is none."""

    def unchanged_since(self, moment: float) -> Iterator[str]:
        """The names of all that this server wrote before."""

    def is_usable(self) -> bool:
        """Whether it could be written to now."""


class FileObjects:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_name(self) -> str:
        return uuid.uuid4().hex

    def adopt(self, draft: Path, name: str) -> None:
        _sync(draft, os.O_RDONLY)
        draft.rename(self._folder / name)
        _sync(self._folder, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, name: str, size: int, start: int, end: int) -> Iterator[bytes]:
        file = _open(self._folder / name, size)

        def pieces() -> Iterator[bytes]:
            with file:
                yield from uncached.read(file.fileno(), start, end)

        return pieces()

    def check(self, name: str, size: int) -> None:
        _open(self._folder / name, size).close()

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def unchanged_since(self, moment: float) -> Iterator[str]:
        for entry in os.scandir(self._folder):
            if not entry.name.startswith(PART) and _written(entry) < moment:
                yield entry.name

    def is_usable(self) -> bool:
        return os.access(self._folder, os.R_OK | os.W_OK | os.X_OK)


def _open(path: Path, size: int) -> IO[bytes]:
    """Raises Damaged unless it is there and so long."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise Damaged from error
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise Damaged
    return file


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(entry: os.DirEntry[str]) -> float:
    """When it was last written to; for one that is gone meanwhile, never mind."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
