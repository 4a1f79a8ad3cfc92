"""The control protocol: what a node asks over the unix socket, and what anything else gets."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from pathlib import Path

import pytest
from federation import TOKEN, Caller, make_input, make_order, read_all

from skerry.trust import Sender
from skerry_proxy.client import ProxyClient, ProxyError
from skerry_proxy.control import ControlServer

pytestmark = pytest.mark.unit


@pytest.fixture
def control(bench):
    server = ControlServer(bench.folder / "control.sock", bench.office)
    server.start()
    yield bench, ProxyClient(bench.folder / "control.sock")
    server.close()


def memory(content: bytes = b"") -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def test_a_run_from_its_order_to_its_end(control, fake, call, alice, bob) -> None:
    _, client = control
    task_uuid, stored = make_input("native", b'{"method": "central"}', alice, bob)
    destination, output, sealed = memory(), memory(b"[1]"), memory()
    opened = client.open(make_order("native", stored, task_uuid=task_uuid), destination)
    assert content(destination) == b'{"method": "central"}'
    assert (opened.sender, opened.method) == (Sender(1, None, 1, signed=True), "central")
    assert (opened.databases, opened.image) == (("default",), "example/mean:1")
    resume = json.loads(json.dumps(opened.resume))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        token = client.serve(resume, TOKEN, [listener.fileno()])
        caller = Caller(listener.getsockname()[1], token)
    assert call(caller, "GET", "/organization/1").status_code == 200
    result = client.seal(resume, "log", output, sealed)
    assert result.size == len(content(sealed)) > 0
    assert client.deliver(resume, TOKEN, "completed", result.log, sealed) == "completed"
    client.close(7, 1)
    client.close(7, 1)
    with pytest.raises(OSError, match="refused"):
        caller.raw(b"")
    assert [pin["organization_id"] for pin in client.pins()] == [1, 2]
    for descriptor in (destination, output, sealed):
        os.close(descriptor)


def test_a_gate_may_listen_on_a_unix_socket_too(control, bench) -> None:
    _, client = control
    path = str(bench.folder / "gate.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    token = client.serve(bench.open()["resume"], TOKEN, [listener.fileno()])
    listener.close()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(f"GET /organization/1 HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_errors_come_with_their_kind(control, fake, alice, bob) -> None:
    bench, client = control
    task_uuid, stored = make_input("native", b'{"method": "central"}', alice, bob)
    destination = memory(b"left over")
    order = make_order("native", stored, task_uuid=task_uuid, image="other")
    with pytest.raises(ProxyError, match="image") as refused:
        client.open(order, destination)
    assert refused.value.kind == "refused"
    assert content(destination) == b""
    resume = bench.open()["resume"]
    fake.faults.append(("/finish", "409"))
    with pytest.raises(ProxyError, match="planted 409") as fenced:
        client.deliver(resume, TOKEN, "crashed", None, None)
    assert fenced.value.kind == "fenced"
    with pytest.raises(ProxyError) as invalid:
        client.deliver({"v": 1}, TOKEN, "crashed", None, None)
    assert invalid.value.kind == "invalid"
    os.close(destination)


def test_an_unforeseen_error_is_logged_and_not_told(control, monkeypatch, caplog) -> None:
    bench, client = control
    monkeypatch.setattr(bench.office, "list_pins", lambda: 1 / 0)
    with pytest.raises(ProxyError, match="its log says why") as raised:
        client.pins()
    assert raised.value.kind == "internal"
    assert "ZeroDivisionError" in caplog.text


def ask_raw(path, data: bytes, descriptors=()) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        socket.send_fds(connection, [data], list(descriptors))
        connection.shutdown(socket.SHUT_WR)
        try:
            return read_all(connection)
        except ConnectionResetError:  # it was closed with something unread
            return b""


def frame(value: object) -> bytes:
    body = json.dumps(value).encode()
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "data", [b"\0", struct.pack(">I", 2**31) + b"x", struct.pack(">I", 10) + b"{}", frame([]), b"\0\0\0\2{]"]
)
def test_what_is_no_request_is_dropped(control, data) -> None:
    bench, client = control
    assert ask_raw(bench.folder / "control.sock", data) == b""
    assert [pin["organization_id"] for pin in client.pins()] == [2], "it answers still, and knows its own keys only"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "exec"},
        {"op": ["pins"]},
        {"op": "open"},
        {"op": "open", "order": {}},
        {"op": "serve", "resume": {}, "token": "t"},
        {"op": "seal", "resume": {}, "log": 5},
        {"op": "deliver", "resume": {}, "token": "t", "finish": None},
        {"op": "close", "run": "7", "attempt": 1},
    ],
)
def test_a_malformed_request_is_an_error_and_leaks_no_descriptor(control, request_) -> None:
    bench, _ = control
    extra = memory()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        answer = json.loads(ask_raw(bench.folder / "control.sock", frame(request_), [extra, extra])[4:])
        assert answer["error"]["kind"] == "invalid"
        assert answer["error"]["message"]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    os.close(extra)


def test_the_socket_is_the_owners_alone(control) -> None:
    bench, _ = control
    assert stat.S_IMODE((bench.folder / "control.sock").stat().st_mode) == 0o600


def test_a_proxy_that_is_not_there_is_said_so(tmp_path) -> None:
    with pytest.raises(ProxyError, match="does not answer") as raised:
        ProxyClient(tmp_path / "nothing").pins()
    assert raised.value.kind == "internal"
