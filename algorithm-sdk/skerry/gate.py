"""HTTP to a run's gate, as the standard library speaks it: a client that takes longer to import than most children run.

By the loopback of the run's namespace, or by a unix socket where the runtime does not share that.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
import weakref
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from skerry.calls import CONNECT_TIMEOUT, Call, Unanswered, error_of, parse, persist
from skerry.errors import ServerUnreachable

_AWAY = frozenset({429, 503, 504})
"""What a gate answers while it can't serve; its 502 says that the server's answer can't be used."""
_FINE = range(200, 300)


class GateTransport:
    """One kept connection to a gate. Not for use by several threads at once. ``path``: of its unix socket."""

    def __init__(
        self,
        base_url: str,
        path: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        url = urlsplit(self.base_url)
        self._prefix = url.path
        self._connection = GateConnection(url.hostname or "", url.port, path)
        weakref.finalize(self, self._connection.close)
        self._clock = clock
        self._sleep = sleep

    def json(self, call: Call) -> Any:
        """The answer's JSON; raises ServerError or a subclass, or ServerUnreachable."""
        status, body = persist(call, self._attempt, self._clock, self._sleep)
        if status not in _FINE:
            raise error_of(status, body, call)
        return parse(status, body, self.base_url)

    def _attempt(self, call: Call) -> tuple[int, bytes]:
        connection = self._connection
        try:
            connection.be_there()
        except OSError as error:
            raise self._unanswered(error, sent=False) from error
        try:
            status, body = self._exchange(call)
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._unanswered(error, sent=True) from error
        if status in _AWAY:
            raise Unanswered(error_of(status, body, call), sent=True)
        return status, body

    def _exchange(self, call: Call) -> tuple[int, bytes]:
        body: bytes | Iterable[bytes] | None = call.data
        head = call.head
        if call.json is not None:
            body, head["Content-Type"] = json.dumps(call.json).encode(), "application/json"
        self._connection.sock.settimeout(call.timeout)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had all
            self._connection.request(call.method, self._target(call), body, head)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _target(self, call: Call) -> str:
        asked = {name: value for name, value in (call.params or {}).items() if value is not None}
        path = f"{self._prefix}/{call.path.lstrip('/')}"
        return f"{path}?{urlencode(asked, doseq=True)}" if asked else path

    def _unanswered(self, error: Exception, *, sent: bool) -> Unanswered:
        what = "does not answer in time" if isinstance(error, TimeoutError) else "can't be reached"
        return Unanswered(ServerUnreachable(f"{self.base_url} {what}: the run's gate is not there."), sent=sent)


class GateConnection(HTTPConnection):
    """By TCP, or by the unix socket at ``path``, whatever the host is called then."""

    def __init__(self, host: str, port: int | None = None, path: str | None = None) -> None:
        super().__init__(host, port, timeout=CONNECT_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT)
        self.sock.connect(self._path)

    def be_there(self) -> None:
        """Connects, unless a kept connection is still good: one that can be read without a question was closed."""
        if self.sock is not None and _is_readable(self.sock):
            self.close()
        if self.sock is None:
            try:
                self.connect()
            except OSError:
                self.close()
                raise


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
