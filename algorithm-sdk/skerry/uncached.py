"""Large files past the page cache: they would push everything else out of it.

The way through the cache takes a page for each 4 KiB, which on virtual machines takes longer than the disk does. Where
a file system can't do without it, the cache is used.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

_BLOCK = 4096
"""What the places and lengths of such reads and writes are multiples of, on all disks in use."""
_BUFFER = 1 << 20
_DIRECT = getattr(os, "O_DIRECT", 0)
_READERS = threading.Semaphore(16)
"""A reader keeps its thread for as long as whoever it reads for takes, and such a caller may be slow."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Behind:
    """A thread that does one thing after another; where there is to be none, or none to be had, its caller does."""

    def __init__(self, name: str, has_thread: bool = True) -> None:
        self._thread = ThreadPoolExecutor(1, name) if has_thread else None

    def do(self, act: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        if self._thread is not None:
            try:
                return self._thread.submit(act, *args, **kwargs)
            except RuntimeError:  # as when the interpreter is about to end; what was submitted is never done then
                self._thread = None
        done: Future[_T] = Future()
        try:
            done.set_result(act(*args, **kwargs))
        except OSError as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """What was begun is over then."""
        if self._thread is not None:
            self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        self._behind = _Behind("writer")
        self._on_its_way: Future[None] | None = None

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
        self._on_its_way = self._behind.do(self._put, self._buffer, self._at)
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
            self._behind.close()
            _bypass_cache(self._descriptor, wanted=False)
            self._buffer.close()
            self._spare.close()


def read(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """What an open file has from ``start`` up to ``end``, piece by piece. Raises OSError.

    While one piece is in use the next one is on its way from the disk, by a thread: for a few readers at a time.
    """
    _bypass_cache(descriptor, wanted=end - start > _BUFFER)
    at = start - start % _BLOCK
    with mmap.mmap(-1, _BUFFER) as buffer, _one_of(_READERS) as has_thread, _Behind("reader", has_thread) as behind:
        count = _get(buffer, descriptor, at, end)
        while count:
            piece = buffer[max(start - at, 0) : min(count, end - at)]
            at += _BUFFER
            coming = behind.do(_get, buffer, descriptor, at, end) if at < end else None
            yield piece
            count = coming.result() if coming is not None else 0


@contextmanager
def _one_of(places: threading.Semaphore) -> Iterator[bool]:
    """Whether one of the places is had, for as long as the block lasts."""
    has_one = places.acquire(blocking=False)
    try:
        yield has_one
    finally:
        if has_one:
            places.release()


def _get(buffer: mmap.mmap, descriptor: int, at: int, end: int) -> int:
    """How many bytes are in the buffer then: all up to ``end`` that it takes, unless the file ends before."""
    count, wanted = 0, min(_blocks(end - at), _BUFFER)
    with memoryview(buffer) as whole:
        while count < min(wanted, end - at):
            with whole[count:wanted] as left:
                more = _retried(os.preadv, descriptor, left, at + count)
            if more == 0:
                break
            count += more
    return count


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
