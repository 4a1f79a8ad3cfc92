"""The framing of the control protocol: a length, a JSON object, and descriptors beside it."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

LARGEST_FRAME = 32 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_MOST_DESCRIPTORS = 40


def send_frame(connection: socket.socket, value: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Sends one object. Raises OSError, or ValueError for one that is too large."""
    body = json.dumps(value).encode()
    if len(body) > LARGEST_FRAME:
        raise ValueError("The message is too large for the control connection.")
    head = _LENGTH.pack(len(body))
    socket.send_fds(connection, [head], list(descriptors))
    connection.sendall(body)


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One object and its descriptors, which are the caller's to close. Raises ValueError or OSError."""
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    try:
        return _receive_body(connection, head), descriptors
    except BaseException:
        close_all(descriptors)
        raise


def _receive_body(connection: socket.socket, head: bytes) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(head + _read(connection, _LENGTH.size - len(head)))
    if length > LARGEST_FRAME:
        raise ValueError("The message on the control connection is too large.")
    value = json.loads(_read(connection, length))
    if not isinstance(value, dict):
        raise ValueError("The message on the control connection is not an object.")
    return value


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _read(connection: socket.socket, size: int) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        piece = connection.recv(min(size - len(whole), 1024 * 1024))
        if not piece:
            raise ValueError("The control connection ended within a message.")
        whole += piece
    return bytes(whole)
