"""Large files past the page cache: what is kept has to reach the disk at once, and is read once as a rule.

The way through the cache takes a page for each 4 KiB, which on virtual machines takes longer than the disk does, and
pushes the database's pages out. Where a file system can't do without it, the cache is used.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

_BLOCK = 4096
"""What the places and lengths of such reads and writes are multiples of, on all disks in use."""
_BUFFER = 1 << 20
_DIRECT = getattr(os, "O_DIRECT", 0)


class Writer:
    """Writes on at the end of an open file that is ``start`` bytes long; it has all of them when the block ends.

    Less than a buffer goes through the cache. What was written before an OSError stays.
    """

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor = descriptor
        self._at = start - start % _BLOCK
        self._buffer = mmap.mmap(-1, _BUFFER)
        self._buffer.write(os.pread(descriptor, start - self._at, self._at))

    def write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            taken = left[: _BUFFER - self._buffer.tell()]
            self._buffer.write(taken)
            left = left[len(taken) :]
            if self._buffer.tell() == _BUFFER:
                _bypass_cache(self._descriptor, wanted=True)
                self._empty()

    def _empty(self) -> None:
        with memoryview(self._buffer) as whole, whole[: self._buffer.tell()] as filled:
            written = 0
            while written < len(filled):
                with filled[written:] as left:
                    written += _retried(os.pwritev, self._descriptor, left, self._at + written)
        self._at += written
        self._buffer.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _bypass_cache(self._descriptor, wanted=False)
            self._empty()
        except OSError:
            if error is None:
                raise
        finally:
            self._buffer.close()


def read(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """What an open file has from ``start`` up to ``end``, piece by piece. Raises OSError."""
    _bypass_cache(descriptor, wanted=end - start > _BUFFER)
    at = start - start % _BLOCK
    with mmap.mmap(-1, _BUFFER) as buffer:
        while at < end:
            with memoryview(buffer) as whole, whole[: _blocks(end - at)] as wanted:
                count = _retried(os.preadv, descriptor, wanted, at)
            if count == 0:
                return
            yield buffer[max(start - at, 0) : min(count, end - at)]
            at += count


def _blocks(size: int) -> int:
    """So many bytes in whole blocks."""
    return size + -size % _BLOCK


def _retried(act: Callable[[int, list[memoryview], int], int], descriptor: int, piece: memoryview, at: int) -> int:
    """How many bytes were moved: through the cache where it can't be done otherwise."""
    try:
        return act(descriptor, [piece], at)
    except OSError as error:
        if error.errno != errno.EINVAL or not _bypass_cache(descriptor, wanted=False):
            raise
    return act(descriptor, [piece], at)


def _bypass_cache(descriptor: int, *, wanted: bool) -> bool:
    """Whether that is a change."""
    before = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    after = before | _DIRECT if wanted else before & ~_DIRECT
    if after == before:
        return False
    with suppress(OSError):  # a file system that can't
        fcntl.fcntl(descriptor, fcntl.F_SETFL, after)
    return True
