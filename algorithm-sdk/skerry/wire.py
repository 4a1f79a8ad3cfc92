"""The values that cross between skerry's parts, and the words of the wire. No I/O, no dependency.

Source of the words: the vantage6 4.x contract and ``docs/reference/native-protocol.md``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MAGIC = b"SKR1"
INLINE_LIMIT = 64 * 1024
"""Payloads up to this many bytes travel inside a JSON message; larger ones as a stream of their own."""


class Format(StrEnum):
    """How a payload is protected on its way."""

    NATIVE = "native"
    VANTAGE6 = "vantage6"
    PLAIN = "plain"


class Status(StrEnum):
    """What the world is told about a run or a task: vantage6's vocabulary."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    START_FAILED = "start failed"
    NO_IMAGE = "non-existing Docker image"
    CRASHED = "crashed"
    KILLED = "killed by user"
    NOT_ALLOWED = "not allowed"
    UNKNOWN_ERROR = "unknown error"

    @property
    def finished(self) -> bool:
        return self not in {Status.PENDING, Status.INITIALIZING, Status.ACTIVE}

    @property
    def failed(self) -> bool:
        return self.finished and self is not Status.COMPLETED


class Limit(StrEnum):
    """What a node says in a status's place of a run that it ended itself; the world is told that the run failed."""

    TIME = "timed out"


End = Status | Limit
"""How a run ended, in a node's words."""


def parse_end(text: str) -> End:
    """Raises ValueError."""
    return Limit(text) if text in set(Limit) else Status(text)


class Refusal(StrEnum):
    """Why a node takes no runs: as much as the world is told of it."""

    STARTING = "starting"
    SANDBOX = "sandbox"
    RECORDS = "records"


@dataclass(frozen=True, slots=True)
class Input:
    """What an algorithm is asked to do: one function and its arguments."""

    method: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, raw: bytes) -> Input:
        """Raises ValueError, with a sentence, for anything that is not an input; extra keys are let pass."""
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ValueError("The input is not JSON.") from error
        if not isinstance(value, dict) or not isinstance(value.get("method"), str):
            raise ValueError('The input must be a JSON object with a string "method".')
        args, kwargs = value.get("args") or [], value.get("kwargs") or {}
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ValueError('In the input "args" must be a list and "kwargs" an object.')
        return cls(value["method"], args, kwargs)


@dataclass(frozen=True, slots=True)
class Context:
    """What an envelope is bound to (native protocol, section 2). Ids are the server's; times are Unix seconds."""

    direction: str
    task: str
    parent: str | None
    collaboration: int
    sender: int
    user: int | None
    recipient: int
    image: str
    databases: tuple[dict[str, Any], ...]
    attempt: int | None
    created: int
    expires: int

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "databases": [dict(d) for d in self.databases]}

    @classmethod
    def parse(cls, value: Any) -> Context:
        """Raises ValueError, naming the field, for anything that is not exactly a context."""
        if not isinstance(value, dict) or set(value) != set(_CONTEXT_TYPES):
            raise ValueError("The context of the envelope lacks a field or has one too many.")
        for name, types in _CONTEXT_TYPES.items():
            if type(value[name]) not in types:
                raise ValueError(f'The field "{name}" of the envelope\'s context has a wrong type.')
        if not all(isinstance(d, dict) for d in value["databases"]):
            raise ValueError('The field "databases" of the envelope\'s context has a wrong type.')
        return cls(**{**value, "databases": tuple(value["databases"])})


_CONTEXT_TYPES: dict[str, tuple[type, ...]] = {
    "direction": (str,),
    "task": (str,),
    "parent": (str, type(None)),
    "collaboration": (int,),
    "sender": (int,),
    "user": (int, type(None)),
    "recipient": (int,),
    "image": (str,),
    "databases": (list,),
    "attempt": (int, type(None)),
    "created": (int,),
    "expires": (int,),
}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def unb64(text: str) -> bytes:
    """Strict base64; raises ValueError."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error


def b64_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 of a stream, in constant memory."""
    return _in_groups(pieces, 3, base64.b64encode)


def unb64_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The stream behind base64, read strictly. Reading on raises ValueError."""
    ended = False

    def decode(group: bytes) -> bytes:
        nonlocal ended
        if ended:
            raise ValueError("not base64")
        ended = group.endswith(b"=")
        return unb64(group.decode("ascii"))

    return _in_groups(pieces, 4, decode)


def _in_groups(pieces: Iterable[bytes], size: int, turn: Callable[[bytes], bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        whole = len(waiting) // size * size
        if whole:
            yield turn(bytes(waiting[:whole]))
            del waiting[:whole]
    if waiting:
        yield turn(bytes(waiting))


def canonical(value: Any) -> bytes:
    """The one JSON spelling of a value that gets signed: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def detect_format(payload: str) -> Format:
    """The format of a payload as it stands in JSON. Three base64 fields joined by dollars are vantage6's."""
    if payload.count("$") == 2:  # noqa: PLR2004
        return Format.VANTAGE6
    head = payload[:8]
    return Format.NATIVE if head.startswith(b64(MAGIC)[:5]) else Format.PLAIN


def to_stored(payload: str, fmt: Format) -> bytes:
    """The bytes that the store keeps for a payload string; raises ValueError when it is not base64."""
    if fmt is Format.VANTAGE6:
        for part in payload.split("$"):
            unb64(part)
        return payload.encode("ascii")
    return unb64(payload)


def from_stored(stored: bytes, fmt: Format) -> str:
    """The payload string for the bytes of the store."""
    return stored.decode("ascii") if fmt is Format.VANTAGE6 else b64(stored)


def from_stored_pieces(stored: Iterable[bytes], fmt: Format) -> Iterable[bytes]:
    """The same of a stream, in constant memory."""
    return stored if fmt is Format.VANTAGE6 else b64_pieces(stored)
