"""A way between two parts that can be cut: what comes to its near end goes to the far one, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

_PIECE = 64 * 1024
_PATIENCE = 5.0


class Wire:
    """``listener`` is the near end; ``reach`` opens a connection to the far one."""

    def __init__(self, listener: socket.socket, reach: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._reach = reach
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._whole = True
        threading.Thread(target=self._listen, name="wire", daemon=True).start()

    @classmethod
    def to_port(cls, port: Callable[[], int]) -> Wire:
        """The far end may move; it is asked for at each connection."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        return cls(listener, lambda: socket.create_connection(("127.0.0.1", port()), timeout=_PATIENCE))

    @classmethod
    def to_socket(cls, near: Path, far: Path) -> Wire:
        near.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(near))
        listener.listen(128)
        return cls(listener, lambda: _reach_socket(far))

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """What is open breaks off, and what comes anew is turned away, until ``join``."""
        with self._lock:
            self._whole = False
            for end in self._ends:
                _shut(end, socket.SHUT_RDWR)

    def join(self) -> None:
        with self._lock:
            self._whole = True

    def close(self) -> None:
        self.cut()
        _shut(self._listener, socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), self._reach() as far:
            far.settimeout(None)
            if not self._note(near, far):
                return
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()
            with self._lock:
                self._ends -= {near, far}

    def _note(self, *ends: socket.socket) -> bool:
        with self._lock:
            if self._whole:
                self._ends.update(ends)
            return self._whole


def _reach_socket(path: Path) -> socket.socket:
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(str(path))
    except OSError:
        far.close()
        raise
    return far


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    _shut(sink, socket.SHUT_WR)


def _shut(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)
