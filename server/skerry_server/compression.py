"""Long lists pass compressed to those who take them so. Nothing else does, and no answer that gives out a secret."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from flask import Flask, Response, request

_SHORTEST = 1400
"""Bytes; a shorter body fits into one packet as it is."""
_AT_ONCE = 1 << 20
"""Of a longer body so much is compressed each time that its caller has taken what came before."""
_LEVEL = 1
"""The quickest: names of fields, of which lists are made, shrink at any."""
_GZIP = 16 + zlib.MAX_WBITS


def install(app: Flask) -> None:
    app.after_request(_compress)


def _compress(response: Response) -> Response:
    if request.method != "GET" or response.status_code != 200 or not response.is_json:  # noqa: PLR2004
        return response
    response.vary.add("Accept-Encoding")
    if response.is_streamed:
        return response  # it is made of ciphertext, which hardly shrinks
    body = response.get_data()
    if len(body) >= _SHORTEST and request.accept_encodings.quality("gzip") > 0:
        _pack(response, body)
    return response


def _pack(response: Response, body: bytes) -> None:
    response.content_encoding = "gzip"
    if len(body) <= _AT_ONCE:
        response.set_data(b"".join(_packed(body)))
    else:
        del response.headers["Content-Length"]
        response.response = _packed(body)


def _packed(body: bytes) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    for start in range(0, len(body), _AT_ONCE):
        yield packer.compress(body[start : start + _AT_ONCE])
    yield packer.flush()
