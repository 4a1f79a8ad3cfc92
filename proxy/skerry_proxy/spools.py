"""Temporary files that have no name, in a folder of the proxy's own."""

from __future__ import annotations

from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

IN_MEMORY = 1024 * 1024
"""Up to this many bytes stay in memory."""


def make_spool(folder: Path) -> IO[bytes]:
    return cast("IO[bytes]", SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(folder)))
