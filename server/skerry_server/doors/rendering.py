"""Answers in JSON, of which the longest strings are written as they come from the store: none is held as a whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, current_app
from flask.json.provider import DefaultJSONProvider


@dataclass(frozen=True, slots=True)
class LongText:
    """Stands in an answer for a string of ASCII. ``pieces`` is called once, when all before it is written."""

    pieces: Callable[[], Iterable[bytes]]


def render(body: Any) -> Response:
    """As ``jsonify`` has it; a stream where a LongText stands in it."""
    mark, texts = secrets.token_hex(16), list[LongText]()

    def stand_in(value: Any) -> Any:
        if not isinstance(value, LongText):
            return DefaultJSONProvider.default(value)
        texts.append(value)
        return mark

    written = current_app.json.dumps(body, separators=(",", ":"), default=stand_in) + "\n"
    answer = _filled(written.split(mark), texts) if texts else written
    return Response(answer, mimetype="application/json")


def _filled(parts: Sequence[str], texts: Sequence[LongText]) -> Iterator[bytes]:
    """What stands between the texts, which are one fewer, and these."""
    yield parts[0].encode()
    for text, part in zip(texts, parts[1:], strict=True):
        yield from map(_escaped, text.pieces())
        yield part.encode()


def _escaped(piece: bytes) -> bytes:
    """As it stands in a string: whoever wrote what is stored can't end the string before its time."""
    return json.dumps(piece.decode("ascii"))[1:-1].encode()
