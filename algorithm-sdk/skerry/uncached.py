"""Large files past the page cache: they would push everything else out of it.

The way through the cache takes a page for each 4 KiB, which on virtual machines takes longer than the disk does. Where
a file system can't do without it, the cache is used.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

_BLOCK = 4096
"""What the places and lengths of such reads and writes are multiples of, on all disks in use."""
_BUFFER = 1 << 20
_DIRECT = getattr(os, "O_DIRECT", 0)


class Writer:
    """Writes on at the end of an open file that is ``start`` bytes long; it has all of them when the block ends.

    The file's first ``cached`` bytes, and less than a buffer at its end, go through the cache. While a buffer is on its
    way to the disk the next one is filled, so an OSError may be raised one buffer late; what was written before stays.
    """

    def __init__(self, descriptor: int, start: int, *, cached: int = 0) -> None:
        self._descriptor = descriptor
        self._cached = cached
        self._at = start - start % _BLOCK
        self._buffer, self._spare = mmap.mmap(-1, _BUFFER), mmap.mmap(-1, _BUFFER)
        self._buffer.write(os.pread(descriptor, start - self._at, self._at))
        self._behind = ThreadPoolExecutor(1, "writer")
        self._on_its_way: Future[None] | None = None
        self._has_thread = True

    def write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            taken = left[: _BUFFER - self._buffer.tell()]
            self._buffer.write(taken)
            left = left[len(taken) :]
            if self._buffer.tell() == _BUFFER:
                self._hand_over()

    def _hand_over(self) -> None:
        self._settle()
        if self._has_thread:
            try:
                self._on_its_way = self._behind.submit(self._put, self._buffer, self._at)
            except RuntimeError:  # there is no thread to be had, as when the interpreter is about to end
                self._has_thread = False
        if not self._has_thread:
            self._put(self._buffer, self._at)
        self._at += _BUFFER
        self._buffer, self._spare = self._spare, self._buffer
        self._buffer.seek(0)

    def _settle(self) -> None:
        """What was handed over is written now. Raises its OSError, each time: a later buffer would leave a hole."""
        if self._on_its_way is not None:
            self._on_its_way.result()

    def _put(self, buffer: mmap.mmap, at: int) -> None:
        """All of the buffer up to where it is filled."""
        full = buffer.tell() == _BUFFER
        _bypass_cache(self._descriptor, wanted=full and at >= self._cached)
        with memoryview(buffer) as whole, whole[: buffer.tell()] as filled:
            written = 0
            while written < len(filled):
                with filled[written:] as left:
                    written += _retried(os.pwritev, self._descriptor, left, at + written)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._settle()
            self._put(self._buffer, self._at)
        except OSError:
            if error is None:
                raise
        finally:
            self._behind.shutdown()
            _bypass_cache(self._descriptor, wanted=False)
            self._buffer.close()
            self._spare.close()


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
