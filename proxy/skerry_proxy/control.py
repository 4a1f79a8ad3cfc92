"""The proxy's side of the control protocol: a unix socket on which the node asks (native protocol, section 5)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skerry.errors import (
    Conflict,
    ContextError,
    CryptoError,
    DecryptionError,
    InvalidInput,
    KeyChanged,
    KeyNotConfirmed,
    MissingKey,
    ServerError,
    ServerUnreachable,
    SignatureError,
)
from skerry_proxy.fields import Fields
from skerry_proxy.frames import close_all, receive_frame, send_frame
from skerry_proxy.office import Office
from skerry_proxy.relays import MOST_RELAYS, Lead
from skerry_proxy.spools import is_full

_BACKLOG = 64
_PEER = struct.Struct("3i")
_TIMEOUT = 30.0
_log = logging.getLogger(__name__)

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (ContextError, "refused"),
    (SignatureError, "refused"),
    (KeyChanged, "refused"),
    (KeyNotConfirmed, "refused"),
    (MissingKey, "refused"),
    (DecryptionError, "invalid"),
    (CryptoError, "invalid"),
    (Conflict, "fenced"),
    (ServerUnreachable, "unreachable"),
    (InvalidInput, "internal"),
    (ValueError, "invalid"),
)
"""The kind of each error, the first that fits; the node's reaction to each is in the protocol."""

_GONE = 410

Operation = Callable[[Office, Fields, Sequence[int]], dict[str, Any]]


def find_kind(error: Exception) -> str:
    """A token that the server no longer takes, a failing server and a full disk are reasons to come again.

    A payload that the server does not have any more is none.
    """
    if isinstance(error, ServerError) and (error.status in {401, 429} or error.status >= 500):  # noqa: PLR2004
        return "unreachable"
    if is_full(error):
        return "unreachable"
    if isinstance(error, ServerError) and error.status == _GONE:
        return "invalid"
    return next((kind for of, kind in _KINDS if isinstance(error, of)), "internal")


def _open(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    return office.open(fields.any("order"), _take(descriptors, 1)[0])


def _serve(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    """The listeners of the relays come last, in their order."""
    leads = [Lead.parse(one) for one in fields.objects("relays")]
    gates = len(descriptors) - len(leads)
    if gates < 1 or len(leads) > MOST_RELAYS:
        raise ValueError("The operation needs at least one listener for the gate, and one for each relay.")
    relays = list(zip(leads, descriptors[gates:], strict=True))
    token = office.serve(fields.any("resume"), fields.text("token", 16384), descriptors[:gates], relays)
    return {"gate_token": token}


def _seal(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    log = fields.text("log", 32 * 1024 * 1024)
    output, destination = _take(descriptors, 2) if descriptors else (None, None)
    size, sealed_log = office.seal(fields.any("resume"), log, output, destination)
    return {"size": size, "log": sealed_log}


def _deliver(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    finish = fields.nested("finish")
    sealed = _take(descriptors, 1)[0] if descriptors else None
    status, log = finish.text("status", 64), finish.optional_text("log", 16 * 1024 * 1024)
    return {"status": office.deliver(fields.any("resume"), fields.text("token", 16384), status, log, sealed)}


def _hand_over(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    finish, [output] = fields.nested("finish"), _take(descriptors, 1)
    status, log = finish.text("status", 64), finish.optional_text("log", 16 * 1024 * 1024)
    return {"status": office.hand_over(fields.any("resume"), fields.text("token", 16384), status, log, output)}


def _close(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    _take(descriptors, 0)
    return office.close_gate((fields.identifier("run"), fields.identifier("attempt")))


def _pins(office: Office, _: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    _take(descriptors, 0)
    return {"data": office.list_pins()}


def _introduce(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    _take(descriptors, 0)
    return {"statement": office.introduce(fields.any("resume"), fields.identifier("job"), fields.nested("peer"))}


def _judge(office: Office, fields: Fields, descriptors: Sequence[int]) -> dict[str, Any]:
    _take(descriptors, 0)
    token, job = fields.text("token", 16384), fields.identifier("job")
    return office.judge(fields.any("resume"), token, job, fields.objects("statements"))


_OPERATIONS: dict[str, Operation] = {
    "open": _open,
    "serve": _serve,
    "seal": _seal,
    "deliver": _deliver,
    "hand_over": _hand_over,
    "close": _close,
    "pins": _pins,
    "introduce": _introduce,
    "judge": _judge,
}


def _take(descriptors: Sequence[int], count: int) -> Sequence[int]:
    if len(descriptors) != count:
        raise ValueError(f"The operation needs {count} descriptors and got {len(descriptors)}.")
    return descriptors


class ControlServer:
    """Listens on a unix socket that only this user may open; each connection carries one request."""

    def __init__(self, path: Path, office: Office) -> None:
        self._office = office
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(_BACKLOG)
        self._closed = False

    def start(self) -> None:
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._serve, args=(connection,), name="control", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                _check_peer(connection)
                connection.settimeout(_TIMEOUT)
                request, descriptors = receive_frame(connection)
            except (ValueError, OSError) as error:
                _log.warning("a control connection was refused: %s", error)
                return
            try:
                answer = self._answer(request, descriptors)
            finally:
                close_all(descriptors)
            with contextlib.suppress(OSError):
                send_frame(connection, answer)

    def _answer(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        try:
            fields = Fields(request, "The request")
            operation = _OPERATIONS[fields.choice("op", tuple(_OPERATIONS))]
            return operation(self._office, fields, descriptors)
        except Exception as error:  # noqa: BLE001 - the top of the loop; `_describe` logs the traceback
            return {"error": _describe(error)}


def _describe(error: Exception) -> dict[str, str]:
    kind = find_kind(error)
    if kind == "internal" and not isinstance(error, ServerError):
        _log.error("an operation failed", exc_info=error)
        return {"kind": kind, "message": "The proxy failed; its log says why."}
    return {"kind": kind, "message": str(error)}


def _check_peer(connection: socket.socket) -> None:
    """Only this user and root: the folder's mode says so too."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, _ = _PEER.unpack(raw)
    if uid not in {0, os.geteuid()}:
        raise ValueError("another user")
