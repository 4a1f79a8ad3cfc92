"""Inputs of child tasks that a container sends ahead of their task, as vantage6's tools do since 4.13.

They wait at the gate: what they are sealed with names the task, and that is not known before.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from skerry_proxy.messages import Refusal

MOST_WAITING = 128
MOST_BYTES = 2 << 30
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """A plaintext in a file without a name; ``key`` is the PEM of the public key that it was sent for, if it was."""

    file: IO[bytes]
    size: int
    key: bytes | None

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the start; it may be read again."""
        self.file.seek(0)
        while piece := self.file.read(_PIECE):
            yield piece


class Blobs:
    """Those of one run. Safe for threads; each is used for one task."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, Blob] = {}
        self._lock = threading.Lock()
        self._closed = False

    def keep(self, body: IO[bytes], size: int, key: bytes | None) -> str:
        """Its name, a UUID. Raises Refusal (413) when the run has sent too much that it does not use, or OSError."""
        with self._lock:
            if self._closed:
                raise Refusal(503, "The run's gate is closed.")
            waiting = sum(blob.size for blob in self._waiting.values())
            if len(self._waiting) >= MOST_WAITING or waiting + size > MOST_BYTES:
                raise Refusal(413, "Too many inputs wait for their tasks: create those first.")
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with its task or the gate
            name = str(uuid.uuid4())
            self._waiting[name] = Blob(file, size, key)
        try:
            shutil.copyfileobj(body, file, _PIECE)
            file.flush()
        except BaseException:
            self._drop(name)
            raise
        return name

    def _drop(self, name: str) -> None:
        with self._lock:
            blob = self._waiting.pop(name, None)
        if blob is not None:
            with contextlib.suppress(OSError):  # what it could not write
                blob.file.close()

    @contextlib.contextmanager
    def taken(self, names: Collection[str]) -> Iterator[dict[str, Blob]]:
        """Those of these names that wait here; they are gone after the block, and wait on when it raises."""
        with self._lock:
            found = {name: self._waiting.pop(name) for name in names if name in self._waiting}
        try:
            yield found
        except BaseException:
            self._give_back(found)
            raise
        for blob in found.values():
            blob.file.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for blob in waiting.values():
            blob.file.close()

    def _give_back(self, found: Mapping[str, Blob]) -> None:
        with self._lock:
            if not self._closed:
                self._waiting |= found
                return
        for blob in found.values():
            blob.file.close()
