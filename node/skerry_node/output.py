"""Reading what an algorithm left behind, as something that a stranger planted."""

from __future__ import annotations

import os
import re
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


_PIECE = 256 * 1024
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_SPACE = b" \t\r\n"
_TELLING = re.compile(rb'[\[\]{}"]')
_STRING_END = re.compile(rb'["\\]')


def is_whole(descriptor: int) -> bool:
    """Whether the file holds one JSON list, object or string to its end, so that nothing of it can be missing.

    Only brackets and quotes are looked at, a piece at a time: no values are made of what the algorithm wrote. Of a
    bare number, or another kind of file, it can't be told.
    """
    scan = _Scan()
    for offset in range(0, os.fstat(descriptor).st_size, _PIECE):
        if not scan.take(os.pread(descriptor, _PIECE, offset)):
            return False
    return scan.whole


class _Scan:
    """How deep in brackets, and whether in a string, the bytes so far end."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.whole = False

    def take(self, piece: bytes) -> bool:
        """False when it can't become whole any more."""
        at = 0
        if not self._begun:
            at = len(piece) - len(piece.lstrip(_SPACE))
            if at == len(piece) or piece[at] not in b'[{"':
                return False
        while at < len(piece):
            if self.whole:
                return not piece[at:].strip(_SPACE)
            at = self._skip_string(piece, at) if self._in_string else self._skip_plain(piece, at)
        return self._depth >= 0

    @property
    def _begun(self) -> bool:
        return self.whole or self._in_string or self._depth > 0

    def _skip_string(self, piece: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _STRING_END.search(piece, at)
        if found is None:
            return len(piece)
        if found[0] == b'"':
            self._in_string, self.whole = False, self._depth == 0
        else:
            self._escaped = True
        return found.end()

    def _skip_plain(self, piece: bytes, at: int) -> int:
        found = _TELLING.search(piece, at)
        if found is None:
            return len(piece)
        byte = found[0][0]
        self._in_string = byte not in _OPENING | _CLOSING
        self._depth += (byte in _OPENING) - (byte in _CLOSING)
        self.whole = not self._in_string and self._depth <= 0
        return found.end()
