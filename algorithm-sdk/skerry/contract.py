"""The container contract: what a node puts into an algorithm's container, and what it expects back.

It is vantage6 4.x's, so that images for either run on both. No I/O.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from skerry.wire import unb64

GATE_HOST = "http://127.0.0.1"
GATE_PORT = 8642
"""Where the gate listens inside every run's namespace; an image may not EXPOSE it."""

DATA_FOLDER = "/mnt/data"
GATE_SOCKET_NAME = "gate.sock"
GATE_SOCKET_FILE = f"{DATA_FOLDER}/{GATE_SOCKET_NAME}"
"""Where the gate listens, too, for runtimes that do not share the namespace's loopback."""

TEMPORARY_FOLDER = "/mnt/tmp"
DEFAULT_PEER_PORT = 8888

INPUT_FILE = "INPUT_FILE"
OUTPUT_FILE = "OUTPUT_FILE"
TOKEN_FILE = "TOKEN_FILE"  # noqa: S105 - the name of a variable
TEMPORARY = "TEMPORARY_FOLDER"
HOST = "HOST"
PORT = "PORT"
API_PATH = "API_PATH"
GATE_SOCKET = "GATE_SOCKET"
"""skerry's own: the path of the gate's unix socket, where that is the way to it."""
REQUESTED_LABELS = "USER_REQUESTED_DATABASE_LABELS"
ALL_LABELS = "DB_LABELS"
PACKAGE = "PKG_NAME"
"""Set by the image, never by a node, and never encoded: the package whose functions may be called."""

_ALWAYS_PLAIN = frozenset(
    {PACKAGE, "PATH", "HOME", "HOSTNAME", "USER", "LOGNAME", "PWD", "SHELL", "TERM", "LANG", "TZ"}
)
_PLAIN_PREFIXES = ("PYTHON", "LD_", "LC_")


def encode(value: str) -> str:
    """Base32 of the UTF-8 text with ``!`` for ``=``; the empty text stays empty."""
    return base64.b32encode(value.encode()).decode("ascii").replace("=", "!")


def decode(value: str) -> str:
    """The inverse of ``encode``; raises ValueError for what ``encode`` can't have made."""
    try:
        return base64.b32decode(value.replace("!", "=").encode("ascii")).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a value that a node encoded") from error


def decode_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """All variables, those that a node encoded decoded.

    Nothing marks an encoded variable, so what can be decoded to printable text is taken to be encoded, except the
    names that belong to the image and its system.
    """
    return {name: value if is_plain(name) else _decoded(value) for name, value in environment.items()}


def read_claims(token: str) -> dict[str, Any]:
    """What a token (a JWT) says, unverified; raises ValueError when it is none."""
    try:
        body = token.split(".")[1].replace("-", "+").replace("_", "/")
        claims = json.loads(unb64(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, RecursionError) as error:
        raise ValueError("not a token") from error
    if not isinstance(claims, dict):
        raise ValueError("not a token")
    return claims


def run_folder(run_id: int) -> str:
    """Where a run finds its input and token and leaves its output."""
    return f"{DATA_FOLDER}/task-{run_id:09d}"


def database_variable(label: str, what: str) -> str:
    """The variable that tells ``what`` (``DATABASE_URI``, ``DATABASE_TYPE``, …) about the database of that label."""
    return f"{label.upper()}_{what}"


def is_plain(name: str) -> bool:
    """Whether the name belongs to an image and its system: such a value is never encoded."""
    return name in _ALWAYS_PLAIN or name.startswith(_PLAIN_PREFIXES)


def _decoded(value: str) -> str:
    try:
        text = decode(value)
    except ValueError:
        return value
    return text if all(letter.isprintable() or letter in "\n\r\t" for letter in text) else value
