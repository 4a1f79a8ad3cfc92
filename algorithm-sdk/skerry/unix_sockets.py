"""HTTP over a unix socket, for ``requests``: a gate in a runtime that does not share the namespace's loopback."""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError


class UnixAdapter(HTTPAdapter):
    """Sends every request to the socket at ``path``, whatever host its URL names; there is no TLS."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": self._make_pool}

    def _make_pool(self, host: str, port: int, **options: Any) -> HTTPConnectionPool:
        return _Pool(host, port, path=self._path, **options)


class _Connection(HTTPConnection):
    def __init__(self, *arguments: Any, path: str, **options: Any) -> None:
        self._path = path
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"{self._path}: {error.strerror or error}") from error
        return connection


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection
