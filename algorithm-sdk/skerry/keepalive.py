"""TCP connections that notice when the other side has silently gone: a middlebox forgot them, or a cable was pulled.

Without this a sender learns of it only by its own time-outs, and a server holds a broken upload as long.
"""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

_IDLE, _EVERY, _TIMES = 5, 5, 3
"""Seconds of silence until the first question, between questions, and how many may stay unanswered."""

SECONDS = _IDLE + _EVERY * _TIMES
"""After so long a connection whose other side has gone is broken off, also with bytes under way (RFC 5482)."""

_WANTED = (
    ("SOL_SOCKET", "SO_KEEPALIVE", 1),
    ("IPPROTO_TCP", "TCP_KEEPIDLE", _IDLE),
    ("IPPROTO_TCP", "TCP_KEEPINTVL", _EVERY),
    ("IPPROTO_TCP", "TCP_KEEPCNT", _TIMES),
    ("IPPROTO_TCP", "TCP_USER_TIMEOUT", SECONDS * 1000),
)
OPTIONS = [
    (getattr(socket, level), getattr(socket, name), value) for level, name, value in _WANTED if hasattr(socket, name)
]
"""For ``setsockopt``; a listener's are those of the connections that it accepts. Not every system has all of them."""

_ALL = [*HTTPConnection.default_socket_options, *OPTIONS]


class KeepaliveAdapter(HTTPAdapter):
    """Makes such connections for ``requests``."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=_ALL, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, socket_options=_ALL, **options)
