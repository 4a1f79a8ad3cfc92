"""Results of any size: a file that is written where the result belongs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from skerry import RunMetadata, info, metadata

PIECE = 1 << 20


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes that no two pieces of are alike."""
    block = hashlib.shake_256(b"skerry").digest(PIECE)
    for start in range(0, size, PIECE):
        yield (start.to_bytes(8) + block[8:])[: size - start]


@metadata
def large(run: RunMetadata, size: int) -> Path:
    with Path(run.output_file).open("wb") as file:
        file.writelines(pieces(size))
    info(f"written at {time.time()}")
    return Path(run.output_file)
