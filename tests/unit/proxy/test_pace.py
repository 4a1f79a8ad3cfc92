"""Who comes too often waits for a turn, at the gate and at a relay."""

from __future__ import annotations

import socket

import pytest
from test_gate_requests import get

from skerry_proxy import office
from skerry_proxy.messages import Limits
from skerry_proxy.pace import Pace

pytestmark = pytest.mark.unit


def test_some_at_once_and_then_so_many_a_second() -> None:
    now = [100.0]
    pace = Pace(3, 2.0, lambda: now[0])
    assert [pace.take() for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    now[0] += 1.0
    assert pace.take() == 0.5
    now[0] += 1000.0
    assert [pace.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_gate_serves_so_many_calls_and_no_more_for_now(bench, monkeypatch) -> None:
    monkeypatch.setattr(office, "Limits", lambda: Limits(at_once=3, per_second=0.001))
    caller = bench.serve(bench.open()["resume"])
    with socket.create_connection(("127.0.0.1", caller.port), timeout=5) as connection:
        for _ in range(3):
            connection.sendall(get(token=caller.token))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(get(token=caller.token))
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(65536)
