"""Taking connections on a run's listeners: a thread for each, so many at once, and an end to all of them."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)

Serve = Callable[[socket.socket], None]


class Reception:
    """Takes over the listeners. ``serve`` gets each connection in a thread, ``turn_away`` those above ``most``; both
    close theirs. ``closing`` is set by ``close``.
    """

    def __init__(
        self,
        name: str,
        listeners: Sequence[socket.socket],
        *,
        most: int,
        serve: Serve,
        turn_away: Serve,
        closing: threading.Event,
    ) -> None:
        self._name = name
        self._listeners = listeners
        self._most = most
        self._serve_one = serve
        self._turn_away = turn_away
        self._closing = closing
        self._connected: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        for listener in self._listeners:
            listener.settimeout(None)
            self._in_thread(self._listen, listener, self._name)

    def listens_on(self, descriptors: Sequence[int]) -> bool:
        """Whether these descriptors are of its own listeners, and of nothing else."""
        own = {os.fstat(listener.fileno()).st_ino for listener in self._listeners}
        return own == {os.fstat(descriptor).st_ino for descriptor in descriptors}

    def close(self) -> None:
        """Ends the listeners and all connections at once."""
        self._closing.set()
        with self._lock:
            for open_socket in (*self._listeners, *self._connected):
                shut(open_socket)

    def _listen(self, listener: socket.socket) -> None:
        with listener:
            while not self._closing.is_set():
                try:
                    connected, _ = listener.accept()
                except OSError:
                    if self._closing.wait(0.05):
                        return
                    continue
                self._receive(connected)

    def _receive(self, connected: socket.socket) -> None:
        with self._lock:
            admitted = len(self._connected) < self._most and not self._closing.is_set()
            if admitted:
                self._connected.add(connected)
        if admitted:
            self._in_thread(self._serve, connected, f"{self._name}-connection")
        else:
            self._turn_away(connected)

    def _serve(self, connected: socket.socket) -> None:
        try:
            self._serve_one(connected)
        except Exception:  # noqa: BLE001 - the top of a thread; the log has the traceback
            _log.exception("%s: a connection failed", self._name)
        finally:
            with self._lock:
                self._connected.discard(connected)

    @staticmethod
    def _in_thread(target: Serve, of: socket.socket, name: str) -> None:
        threading.Thread(target=target, args=(of,), name=name, daemon=True).start()


def shut(open_socket: socket.socket) -> None:
    """Ends both directions of a socket, whatever threads wait for it."""
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
