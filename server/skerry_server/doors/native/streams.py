"""Payloads as streams of bytes: sent from wherever the reader wants, and received over as many calls as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from flask import Response, request
from pydantic import Field

from skerry_server.doors.fields import Query
from skerry_server.doors.handling import Call
from skerry_server.models import Payload
from skerry_server.payloads import Span
from skerry_server.server import Server

HEADER_BYTES = (1 << 20) + 8
"""More than the header of an envelope may take."""

_Bytes = Annotated[int, Field(ge=0, lt=2**53)]


class UploadQuery(Query):
    """Which bytes the body is: those from ``start`` on, of ``size`` in all; by default it is the whole."""

    start: _Bytes = 0
    size: _Bytes | None = None

    def span(self) -> Span:
        """A body of unknown length, of which ``size`` is not said either, ends where the payload does."""
        if self.size is not None or request.content_length is None:
            return Span(self.start, self.size)
        return Span(self.start, self.start + request.content_length)


def send(call: Call, payload: Payload) -> Response:
    """All of it, or the one range that is asked for (RFC 9110, section 14)."""
    store, asked = call.server.payloads, request.range
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(payload.size)}
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return Response(store.read(payload), mimetype=_OCTETS, headers=headers)
    found = asked.range_for_length(payload.size)
    if found is None:
        return Response(status=416, headers={"Content-Range": f"bytes */{payload.size}"})
    start, end = found
    headers |= {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{payload.size}"}
    return Response(store.read(payload, start, end), 206, mimetype=_OCTETS, headers=headers)


@contextmanager
def kept(server: Server, payload: Payload) -> Iterator[None]:
    """The file of a payload goes when its row can't be written."""
    try:
        yield
    except BaseException:
        server.payloads.forget(payload)
        raise


_OCTETS = "application/octet-stream"
