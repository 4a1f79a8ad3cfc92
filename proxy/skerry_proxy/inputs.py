"""Which function a decrypted input asks for."""

from __future__ import annotations

import os
from typing import IO

from skerry.wire import Input

LARGEST_INPUT = 64 * 1024 * 1024


def read_method(file: IO[bytes]) -> str:
    """Raises ValueError for what is not an input."""
    size = file.seek(0, os.SEEK_END)
    if size > LARGEST_INPUT:
        raise ValueError(f"The input has {size} bytes; at most {LARGEST_INPUT} are possible.")
    file.seek(0)
    return Input.parse(file.read()).method
