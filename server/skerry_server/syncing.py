"""Writing a large file onto the disk while it grows, so that the sync at its end has little left to do."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_EVERY = 64 << 20


class Syncing:
    """Syncs an open file after every so many bytes, in a thread of its own, which small files do without."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = 0
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """Waits where the disk is slower than the writer. Raises OSError."""
        self._waiting += size
        if self._waiting < _EVERY:
            return
        self._waiting = 0
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "sync")
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(os.fdatasync, self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
