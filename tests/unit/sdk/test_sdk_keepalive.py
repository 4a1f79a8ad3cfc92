"""Connections that notice when the other side has silently gone."""

from __future__ import annotations

import socket

import pytest

from skerry.keepalive import OPTIONS, SECONDS, KeepaliveAdapter
from skerry_server.serve import listen

pytestmark = pytest.mark.unit


def is_set(connection: socket.socket) -> bool:
    return all(connection.getsockopt(level, name) == value for level, name, value in OPTIONS)


def test_both_ends_of_a_connection_have_it() -> None:
    assert len(OPTIONS) == 5
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        pool = KeepaliveAdapter().poolmanager.connection_from_url(url)
        made = pool._new_conn()  # type: ignore[attr-defined]
        made.connect()
        accepted, _ = listener.accept()
        with accepted:
            assert is_set(made.sock)
            assert is_set(accepted)
        made.close()


def test_a_proxy_is_reached_so_too() -> None:
    manager = KeepaliveAdapter().proxy_manager_for("http://127.0.0.1:9")
    assert set(OPTIONS) <= set(manager.connection_pool_kw["socket_options"])


def test_it_takes_less_than_any_time_out_of_a_call() -> None:
    assert SECONDS < 60
