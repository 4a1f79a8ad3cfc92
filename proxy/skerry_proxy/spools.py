"""Temporary files that have no name, in a folder of the proxy's own; and what tells that there is no room for one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

IN_MEMORY = 1024 * 1024
"""Up to this many bytes stay in memory."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: Exception) -> bool:
    """Whether the disk has no room: a reason to come again."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def filled_spool(folder: Path) -> Iterator[IO[bytes]]:
    """A file to be filled, and read and closed by someone else; closed at once when filling it fails."""
    spool = cast("IO[bytes]", SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(folder)))  # noqa: SIM115 - the filler of it closes it
    try:
        yield spool
    except BaseException:
        spool.close()
        raise
