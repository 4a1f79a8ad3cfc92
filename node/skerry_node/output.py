"""Reading what an algorithm left behind, as something that a stranger planted."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import SkerryError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadOutput(SkerryError):
    """There is no result that could be handed on; the sentence is for the user."""


@dataclass(frozen=True, slots=True)
class Output:
    """An open, regular, bounded file. The caller closes it."""

    descriptor: int
    size: int


def open_output(folder: Path, *, owner: int, limit: int) -> Output:
    """Opens ``output`` in the run's own folder; follows no link and waits for no pipe. Raises BadOutput."""
    try:
        parent = os.open(folder, _FOLDER_FLAGS)
        try:
            descriptor = os.open("output", _FLAGS, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise BadOutput("The algorithm left something else than a file where its result belongs.") from error
    try:
        return Output(descriptor, _check(os.fstat(descriptor), owner, limit))
    except BadOutput:
        os.close(descriptor)
        raise


def _check(status: os.stat_result, owner: int, limit: int) -> int:
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_nlink != 1:
        raise BadOutput("The algorithm left something else than its own file where its result belongs.")
    if status.st_size == 0:
        raise BadOutput("The algorithm ended without writing a result.")
    if status.st_size > limit:
        raise BadOutput(f"The result has {status.st_size} bytes; this node allows {limit} (limits.output).")
    return status.st_size
