from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from skerry.calls import Call
from skerry.errors import ServerError, ServerUnreachable
from skerry.gate import GateTransport

pytestmark = pytest.mark.unit
GET = Call("GET", "thing", repeatable=True)
POST = Call("POST", "task", json={"a": 1}, patience=0.3)


@pytest.fixture
def gate(server) -> GateTransport:
    return GateTransport(server.url)


def test_a_call(server, gate) -> None:
    server.on("POST", "task", (201, {"id": 1}))
    call = replace(POST, token="t", params={"a": "b c", "n": None, "ids": [1, 2]}, headers={"X-Y": "z"})
    assert gate.json(call) == {"id": 1}
    [asked] = server.asked
    assert (asked.json, asked.token, asked.headers["X-Y"]) == ({"a": 1}, "t", "z")
    assert asked.params["a"] == "b c"
    assert "n" not in asked.params


def test_an_answer_that_comes_before_all_was_sent(tmp_path) -> None:
    answered, path = threading.Event(), str(tmp_path / "gate.sock")

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        asked = b""
        with connection:
            while not asked.endswith(b"some"):
                asked += connection.recv(4096)
            connection.sendall(b'HTTP/1.1 413 \r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"msg": "Too much."}')
        answered.set()

    def pieces() -> Iterator[bytes]:
        yield b"some"
        answered.wait(10)
        yield b" more"

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        gate = GateTransport("http://127.0.0.1:8642", path)
        with pytest.raises(ServerError, match="Too much"):
            gate.json(Call("POST", "blobstream", data=pieces(), headers={"Content-Length": "9"}))
        thread.join()


def test_a_gates_502_is_final(server, gate) -> None:
    server.on("GET", "thing", (502, {"msg": "can't be opened"}), (503, {}))
    with pytest.raises(ServerError, match="can't be opened"):
        gate.json(GET)
    assert len(server.asked) == 1


def test_what_may_be_repeated_is(server, gate) -> None:
    server.on("GET", "thing", (503, {}), None, {"id": 1})
    assert gate.json(GET) == {"id": 1}
    server.on("POST", "task", None, {"id": 2})
    with pytest.raises(ServerUnreachable, match="can't be reached"):
        gate.json(POST)


def test_a_redirect_is_not_followed(server, gate) -> None:
    server.on("GET", "thing", (302, {}))
    with pytest.raises(ServerError, match="302"):
        gate.json(GET)


def test_a_kept_connection_that_was_closed_is_another_one(tmp_path) -> None:
    """By a unix socket: each connection is good for one answer, and then it is closed without a word."""
    path = str(tmp_path / "gate.sock")
    answered = threading.Semaphore(0)

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"}"):
                    asked += connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            answered.release()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        gate = GateTransport("http://127.0.0.1:8642", path)
        for _ in range(2):
            assert gate.json(POST) == {}
            assert answered.acquire(timeout=10)
        server.join(10)
    gate._connection.close()


def test_a_unix_socket_that_nobody_listens_on(tmp_path) -> None:
    """It certainly was not sent, so even what may not be repeated is tried again."""
    pauses: list[float] = []
    clock = iter(range(0, 1000, 10))
    path = str(tmp_path / "gate.sock")
    gate = GateTransport("http://127.0.0.1:8642", path, clock=lambda: float(next(clock)), sleep=pauses.append)
    with pytest.raises(ServerUnreachable, match="can't be reached"):
        gate.json(Call("POST", "task", json={}))
    assert pauses


def test_the_client_of_an_algorithm_imports_no_large_library() -> None:
    code = "import sys, skerry.entrypoint, skerry.algorithm_client, skerry.gate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"requests", "urllib3", "pandas", "numpy", "cryptography"} & set(loaded)
