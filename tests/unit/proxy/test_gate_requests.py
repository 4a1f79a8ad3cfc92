"""The gate's HTTP: what could be read two ways is refused, and what is refused costs nothing."""

from __future__ import annotations

import json
import re
import socket
import threading

import pytest
from federation import Caller, read_all, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry_proxy.messages import Connection, Gone, Limits, Refusal

pytestmark = pytest.mark.unit
ANSWER = re.compile(rb"HTTP/1.1 \d{3} ")


def get(path: str = "/organization/1", *headers: str, token: str = "", version: str = "HTTP/1.1") -> bytes:
    lines = [f"GET {path} {version}", "Host: gate", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def caller(bench) -> Caller:
    return bench.serve(bench.open()["resume"])


def post(*headers: str, body: bytes = b"{}") -> bytes:
    return "\r\n".join(["POST /task HTTP/1.1", "Host: gate", *headers, "", ""]).encode("latin-1") + body


REFUSED = {
    "both lengths": (post("Content-Length: 2", "Transfer-Encoding: chunked"), 400),
    "two equal lengths": (post("Content-Length: 2", "Content-Length: 2"), 400),
    "two lengths": (post("Content-Length: 2", "Content-Length: 3"), 400),
    "a list of lengths": (post("Content-Length: 2, 2"), 400),
    "a signed length": (post("Content-Length: +2"), 400),
    "a hexadecimal length": (post("Content-Length: 0x2"), 400),
    "an endless length": (post("Content-Length: " + "9" * 400), 400),
    "another encoding": (post("Transfer-Encoding: gzip, chunked"), 501),
    "an unknown encoding": (post("Transfer-Encoding: identity"), 501),
    "a bad chunk": (post("Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    "absolute form": (get("http://gate/organization/1"), 400),
    "absolute form to another": (get("http://169.254.169.254/latest"), 400),
    "authority form": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 405),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\nHost: gate\r\n\r\n", 405),
    "a target of another host": (get("//evil/organization/1"), 400),
    "a fragment": (get("/version#x"), 400),
    "upgrade": (get("/version", "Upgrade: websocket", "Connection: Upgrade"), 400),
    "upgrade to h2c": (get("/version", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), 400),
    "a folded line": (get("/version", "X-A: b", " c: d"), 400),
    "a space before the colon": (post("Content-Length : 2"), 400),
    "a bare line feed": (b"GET /version HTTP/1.1\nHost: gate\r\n\r\n", 400),
    "a bare line feed in a header": (get("/version", "X-A: b\nContent-Length: 5"), 400),
    "a bare carriage return": (get("/version", "X-A: b\rc"), 400),
    "a null byte": (get("/version", "X-A: b\0c"), 400),
    "no host": (b"GET /version HTTP/1.1\r\n\r\n", 400),
    "a header without colon": (b"GET /version HTTP/1.1\r\nHost: g\r\ncontent-length\r\n\r\n", 400),
    "two hosts": (b"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two tokens": (get("/version", "Authorization: Bearer a", "Authorization: Bearer b"), 400),
    "HTTP/1.0": (get("/version", version="HTTP/1.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a head without end": (b"GET /version HTTP/1.1\r\n" + b"X: " + b"y" * 20_000, 431),
    "a large head": (get("/version", "X-A: " + "b" * 17_000), 431),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a body for GET": (get("/version", "Content-Length: 2") + b"{}", 400),
    "TRACE": (b"TRACE /version HTTP/1.1\r\nHost: gate\r\n\r\n", 405),
    "HEAD": (b"HEAD /version HTTP/1.1\r\nHost: gate\r\n\r\n", 405),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_ambiguous_requests_are_refused_and_the_connection_closed(caller, fake, name) -> None:
    data, status = REFUSED[name]
    before = len(fake.seen)
    answer = caller.raw(data)
    assert status_of(answer) == status
    assert b"Connection: close" in answer
    assert len(ANSWER.findall(answer)) == 1
    assert len(fake.seen) == before


def test_a_well_formed_request_is_answered(caller) -> None:
    answer = caller.raw(get(token=caller.token))
    assert status_of(answer) == 200
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"echo": "/organization/1"}


def test_a_connection_serves_one_request_after_the_other(caller) -> None:
    with socket.create_connection(("127.0.0.1", caller.port), timeout=5) as connection:
        for number in (1, 2, 3):
            connection.sendall(get(f"/organization/{number}", token=caller.token))
            assert f"/organization/{number}".encode() in connection.recv(65536)


def test_a_request_sent_ahead_of_an_answer_is_not_served(caller) -> None:
    """Whatever follows a request that asks for one answer can't be smuggled into a second."""
    answer = caller.raw(get("/organization/1", token=caller.token) + get("/organization/2", token=caller.token))
    assert len(ANSWER.findall(answer)) == 1


def test_a_chunked_body_is_read(caller) -> None:
    body = b"4\r\n[1, \r\n2\r\n2]\r\n0\r\n\r\n"
    data = post("Transfer-Encoding: chunked", f"Authorization: Bearer {caller.token}", body=body)
    answer = caller.raw(data)
    assert status_of(answer) == 400
    assert b"The task is not a JSON object" in answer


def test_a_client_that_waits_for_a_go_ahead_gets_it(caller) -> None:
    head = post("Content-Length: 2", "Expect: 100-continue", f"Authorization: Bearer {caller.token}", body=b"")
    with socket.create_connection(("127.0.0.1", caller.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_run_has_sixteen_connections_at_most(caller) -> None:
    idle = [socket.create_connection(("127.0.0.1", caller.port), timeout=5) for _ in range(16)]
    try:
        wait_for(lambda: sum(t.name.endswith("-connection") for t in threading.enumerate()) >= 16)
        with socket.create_connection(("127.0.0.1", caller.port), timeout=5) as one_more:
            answer = read_all(one_more)
        assert status_of(answer) == 503
    finally:
        for connection in idle:
            connection.close()
    assert status_of(wait_until_served(caller)) == 200


def wait_until_served(caller: Caller) -> bytes:
    answers: list[bytes] = []

    def served() -> bool:
        try:
            answers.append(caller.raw(get("/version")))
        except ConnectionError:  # refused in the moment in which it was sent
            return False
        return status_of(answers[-1]) == 200

    wait_for(served)
    return answers[-1]


@pytest.fixture
def pair(tmp_path):
    """A connection of the gate with short limits, and the other end."""
    ours, theirs = socket.socketpair()
    limits = Limits(idle=0.2, head=0.2, request=0.2, body=100)
    with ours, theirs:
        yield Connection(ours, limits, tmp_path), theirs


@pytest.mark.parametrize("sent", [b"", b"GET /version HT", post("Content-Length: 50")])
def test_who_says_nothing_more_is_left(pair, sent) -> None:
    connection, other = pair
    other.sendall(sent)
    with pytest.raises(Gone):
        connection.read()


@pytest.mark.parametrize("headers", [["Content-Length: 200"], ["Transfer-Encoding: chunked"]])
def test_a_body_that_is_too_large_is_refused(pair, headers) -> None:
    connection, other = pair
    body = b"x" * 200 if "Content" in headers[0] else b"c8\r\n" + b"x" * 200 + b"\r\n0\r\n\r\n"
    other.sendall(post(*headers, body=body))
    with pytest.raises(Refusal) as refused:
        connection.read()
    assert refused.value.status == 413


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    data=st.binary(max_size=400), start=st.sampled_from([b"", b"GET /version HTTP/1.1\r\n", post("Content-Length: 5")])
)
def test_whatever_comes_is_a_request_a_refusal_or_an_end(tmp_path, data, start) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(start + data + b"\r\n\r\n")
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(ours, Limits(idle=2, head=2, request=2, body=100), tmp_path)
        try:
            connection.read().body.close()
        except Refusal as refusal:
            connection.refuse(refusal)
        except Gone:
            pass


def test_who_sends_too_much_still_reads_why(bench, call) -> None:
    """Without a reader for the rest, the connection would be reset and the answer lost."""
    caller = bench.serve(bench.open()["resume"])
    answer = call(caller, "POST", "/task", data=b"[" + b"0," * 34_000_000 + b"0]")
    assert answer.status_code == 413
    assert "larger" in answer.json()["msg"]
