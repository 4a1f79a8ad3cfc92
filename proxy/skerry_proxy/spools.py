"""Temporary files that have no name, in a folder of the proxy's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

IN_MEMORY = 1024 * 1024
"""Up to this many bytes stay in memory."""


@contextmanager
def filled_spool(folder: Path) -> Iterator[IO[bytes]]:
    """A file to be filled, and read and closed by someone else; closed at once when filling it fails."""
    spool = cast("IO[bytes]", SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(folder)))  # noqa: SIM115 - the filler of it closes it
    try:
        yield spool
    except BaseException:
        spool.close()
        raise
