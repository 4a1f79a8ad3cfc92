"""Payloads of any size between a script and its server: in pieces, and from where it broke off when it did."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

import requests

from skerry.calls import Call
from skerry.errors import ServerError, ServerUnreachable, SkerryError

if TYPE_CHECKING:
    from skerry.session import Session

Show = Callable[[int, int], None]
"""Told how many bytes there are, of how many."""

PIECE = 1024 * 1024
_PATIENCE = 300.0
"""Seconds for which a stream goes on trying without a byte that is new: it waits for a server that is away, whose disk
is full, or that still holds on to a connection which is gone, or keeps what came in a store that is slow."""

_LOOK_AGAIN = frozenset({409, 429})
"""What an upload is told beside 5xx when it may be over, or go on, at the next look: someone was first, or too fast."""

_BROKEN = "The connection to the server broke off again and again: try later."
_PARTIAL = 206


def download(session: Session, path: str, show: Show = lambda _have, _size: None) -> Iterator[bytes]:
    """What lies there, piece by piece. Raises ServerError or a subclass, or ServerUnreachable."""
    have, size, patience = 0, None, session.transport.patience(_PATIENCE)
    while size is None or have < size:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        call = Call("GET", path, headers=headers, repeatable=True, patience=patience.left)
        with session.open(call) as answer:
            size = whole_size(answer, have)
            for piece in _pieces(answer):
                have += len(piece)
                show(have, size)
                yield piece
                patience.renew()
        if have < size and not patience.pause():
            raise ServerUnreachable(_BROKEN)


def upload(session: Session, path: str, file: IO[bytes], show: Show = lambda _have, _size: None) -> None:
    """Puts a whole file there. Raises as ``download`` does."""
    size, most, patience = file.seek(0, os.SEEK_END), -1, session.transport.patience(_PATIENCE)
    given_up: SkerryError | None = None
    while True:
        known = session.json(Call("GET", path, repeatable=True, patience=_PATIENCE))
        if known["complete"]:
            return
        have = min(int(known["received"]), size)
        if have > most:
            most = have
            patience.renew()
        elif given_up is not None:
            raise given_up
        rest, span = _Rest(file, have, size, show), {"start": have, "size": size}
        try:
            session.json(Call("PUT", path, params=span, data=rest, patience=_PATIENCE))
        except (ServerError, ServerUnreachable) as error:
            if not _may_pass(error):
                raise
            given_up = None if patience.pause() else error


def _may_pass(error: ServerError | ServerUnreachable) -> bool:
    """Whether the same upload may fare better in a moment."""
    return isinstance(error, ServerUnreachable) or error.status >= 500 or error.status in _LOOK_AGAIN  # noqa: PLR2004


class _Rest:
    """A file from some place to its end: ``requests`` sends it in pieces, and announces its length."""

    def __init__(self, file: IO[bytes], start: int, size: int, show: Show) -> None:
        self._file, self._start, self._size, self._show = file, start, size, show

    def __len__(self) -> int:
        return self._size - self._start

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        have = self._start
        while piece := self._file.read(PIECE):
            have += len(piece)
            yield piece
            self._show(have, self._size)


def whole_size(answer: requests.Response, have: int) -> int:
    """Of the payload. Raises ServerError unless the answer goes on where it should."""
    try:
        if not have:
            return int(answer.headers["Content-Length"])
        if answer.status_code == _PARTIAL:
            span, _, size = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")
            if span.startswith(f"{have}-"):
                return int(size)
    except (KeyError, ValueError):
        pass
    raise ServerError("The server does not say where in the payload its answer begins.", answer.status_code)


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """Up to where the connection ends, well or not."""
    try:
        yield from answer.iter_content(PIECE)
    except requests.RequestException:
        return
