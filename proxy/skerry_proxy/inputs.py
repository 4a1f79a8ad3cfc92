"""Which function an input asks for: found while its plaintext streams by, in constant memory."""

from __future__ import annotations

import json
import re
from typing import IO

from skerry.wire import Input

CHECKED_AS_A_WHOLE = 1024 * 1024
"""Inputs up to this many bytes are parsed to their end; of larger ones only the top level is looked at."""

_LONGEST_NAME = 4096
_IN_STRING = re.compile(rb'["\\]')
_ON_TOP = re.compile(rb'["\[\]{}:,]')
_DEEP = re.compile(rb'["\[\]{}]')
_OPENING = frozenset(b"{[")
_CLOSING = frozenset(b"}]")


class InputWriter:
    """Copies an input into a file and reads its ``method`` on the way. ``write`` raises ValueError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._scanner = MethodScanner()
        self._start = bytearray()
        self._size = 0

    def write(self, piece: bytes) -> int:
        self._size += len(piece)
        if self._size <= CHECKED_AS_A_WHOLE:
            self._start += piece
        self._scanner.feed(piece)
        return self._file.write(piece)

    def finish(self) -> str:
        """The method; raises ValueError for what is not an input, or names its function twice."""
        method = self._scanner.finish()
        if self._size <= CHECKED_AS_A_WHOLE and Input.parse(bytes(self._start)).method != method:
            raise ValueError("The input does not say clearly which function it asks for.")
        return method


class MethodScanner:
    """Finds the string ``method`` of a JSON object's top level. Other parsers can't read another one there."""

    def __init__(self) -> None:
        self._depth = 0
        self._ended = False
        self._quoted = False
        self._escaped = False
        self._text = bytearray()
        self._key: str | None = None
        self._is_value = False
        self._method: str | None = None

    def feed(self, piece: bytes) -> None:
        """Raises ValueError as soon as this can't be an input."""
        position = 0
        while position < len(piece):
            position = self._read_string(piece, position) if self._quoted else self._read_structure(piece, position)

    def finish(self) -> str:
        """Raises ValueError when there was no method."""
        if not self._ended:
            raise ValueError("The input is not JSON.")
        if self._method is None:
            raise ValueError('The input must be a JSON object with a string "method".')
        return self._method

    def _read_structure(self, piece: bytes, position: int) -> int:
        found = (_ON_TOP if self._depth <= 1 else _DEEP).search(piece, position)
        end = len(piece) if found is None else found.start()
        if self._depth == 0 and piece[position:end].strip():
            raise ValueError("The input is not a JSON object.")
        if found is None:
            return end
        self._take(piece[end])
        return end + 1

    def _take(self, byte: int) -> None:
        if self._depth == 0 and (byte != ord("{") or self._ended):
            raise ValueError("The input is not a JSON object.")
        if byte == ord('"'):
            self._quoted, self._text = True, bytearray()
        elif byte in _OPENING:
            self._depth += 1
        elif byte in _CLOSING:
            self._depth -= 1
            self._ended = self._depth == 0
        elif byte == ord(":"):
            self._is_value = True
        else:
            self._is_value, self._key = False, None

    def _read_string(self, piece: bytes, position: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(piece[position : position + 1])
            return position + 1
        found = _IN_STRING.search(piece, position)
        end = len(piece) if found is None else found.start()
        self._keep(piece[position:end])
        if found is None:
            return end
        self._escaped = found[0] == b"\\"
        if self._escaped:
            self._keep(b"\\")
        else:
            self._quoted = False
            self._end_string()
        return end + 1

    def _keep(self, text: bytes) -> None:
        if self._depth == 1 and len(self._text) <= _LONGEST_NAME:
            self._text += text[: _LONGEST_NAME + 1]

    def _end_string(self) -> None:
        if self._depth != 1 or (self._is_value and self._key != "method"):
            return
        if len(self._text) > _LONGEST_NAME:
            raise ValueError("The input has a name that is longer than any function's or argument's.")
        text = _decode(bytes(self._text))
        if not self._is_value:
            self._key = text
        elif self._method is None:
            self._method = text
        else:
            raise ValueError("The input names its function twice.")


def _decode(text: bytes) -> str:
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError as error:
        raise ValueError("The input is not JSON.") from error
