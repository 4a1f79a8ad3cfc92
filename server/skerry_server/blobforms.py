"""The forms of a payload in vantage6's blob stream, and how they become what the store keeps, in constant memory.

Source: the vantage6 contract, section 6. An encrypted blob is ``base64(key)$base64(iv)$`` and the raw ciphertext; a
plain one is base64 text. The store has one form for each format, whichever way a payload came: see ``skerry.wire``.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from skerry.wire import MAGIC, Format, b64_pieces, unb64, unb64_pieces
from skerry_server.errors import InvalidRequest

_HEAD_BYTES = 8192
_IV_BYTES = 16
_MINIMUM_WRAPPED = 128
_NOT_A_BLOB = (
    "The body is neither an encrypted blob (base64 key, $, base64 iv, $, ciphertext) nor base64 of UTF-8 text."
)


def to_stored(blob: Iterable[bytes]) -> tuple[Format, Iterator[bytes]]:
    """The format of a blob, by its beginning, and what to store. Reading on raises InvalidRequest for what is none."""
    pieces = iter(blob)
    head = bytearray()
    while len(head) < _HEAD_BYTES and (piece := next(pieces, None)) is not None:
        head += piece
    whole = itertools.chain([bytes(head)], pieces)
    if head.startswith(MAGIC + b"\0"):
        return Format.NATIVE, whole
    start = header_size(bytes(head))
    if start:
        rest = itertools.chain([bytes(head[start:])], pieces)
        return Format.VANTAGE6, itertools.chain([bytes(head[:start])], b64_pieces(rest))
    return Format.PLAIN, _utf8(decoded(whole))


def from_stored(stored: Iterable[bytes], fmt: Format) -> Iterator[bytes]:
    """The blob again."""
    pieces = iter(stored)
    if fmt is Format.NATIVE:
        return pieces
    if fmt is Format.PLAIN:
        return b64_pieces(pieces)
    head = bytearray()
    while head.count(b"$") < 2 and (piece := next(pieces, None)) is not None:  # noqa: PLR2004 - key, iv
        head += piece
    start = head.index(b"$", head.index(b"$") + 1) + 1
    return itertools.chain([bytes(head[:start])], decoded(itertools.chain([bytes(head[start:])], pieces)))


def decoded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The stream behind base64, read strictly. Raises InvalidRequest."""
    try:
        yield from unb64_pieces(pieces)
    except ValueError as error:
        raise InvalidRequest(_NOT_A_BLOB) from error


def header_size(head: bytes) -> int:
    """How long the header of an encrypted blob is; 0 where there is none."""
    fields = head.split(b"$", 2)
    try:
        wrapped, iv, _ = (unb64(field.decode("ascii")) if index < 2 else b"" for index, field in enumerate(fields))  # noqa: PLR2004
    except ValueError:
        return 0
    fits = len(wrapped) >= _MINIMUM_WRAPPED and len(iv) == _IV_BYTES
    return len(fields[0]) + len(fields[1]) + 2 if fits else 0


def _utf8(pieces: Iterable[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in pieces:
            decoder.decode(piece)
            yield piece
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InvalidRequest(_NOT_A_BLOB) from error
