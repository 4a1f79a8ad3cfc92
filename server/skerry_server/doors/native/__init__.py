"""The native door: what skerry's own parts say to the server (``docs/reference/native-protocol.md``, section 4)."""

from __future__ import annotations

from flask import Blueprint

from skerry_server.doors.native import audit, blobs, joining, keys, peers, runs, waits, work


def blueprint() -> Blueprint:
    door = Blueprint("native", __name__, url_prefix="/skerry")
    for part in (keys, joining, work, runs, blobs, peers, waits, audit):
        part.register(door)
    return door
