"""Long lists pass compressed to those who take them so. Nothing else does, and no answer that gives out a secret."""

from __future__ import annotations

import gzip

from flask import Flask, Response, request

_WORTHWHILE = range(1400, 1 << 20)
"""Bytes; a shorter body fits into one packet as it is, and a longer one is ciphertext, which hardly shrinks."""
_LEVEL = 1
"""The quickest: names of fields, of which lists are made, shrink at any."""


def install(app: Flask) -> None:
    app.after_request(_compress)


def _compress(response: Response) -> Response:
    if request.method != "GET" or response.status_code != 200 or not response.is_json:  # noqa: PLR2004
        return response
    response.vary.add("Accept-Encoding")
    if response.is_streamed:
        return response  # it is made of ciphertext, which hardly shrinks
    body = response.get_data()
    if len(body) in _WORTHWHILE and request.accept_encodings.quality("gzip") > 0:
        response.set_data(gzip.compress(body, _LEVEL, mtime=0))
        response.content_encoding = "gzip"
    return response
