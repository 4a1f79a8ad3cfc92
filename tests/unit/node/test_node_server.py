from __future__ import annotations

import http.server
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from skerry.audit import Head
from skerry.errors import AuthenticationError, Conflict, NotFound, ServerError, ServerUnreachable
from skerry.wire import Status
from skerry_node.config import ServerSettings
from skerry_node.launchers.launcher import Attempt
from skerry_node.server import BackOff, Interrupted, KeyRefused, Server, ServerClock

pytestmark = pytest.mark.unit
HEAD = Head("node-1", 3, "a" * 64)


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers from a table of (method, path) → list of (status, value); keeps what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[tuple[str, str], list] = {("POST", "/api/token/node"): [(200, {"access_token": "t1"})] * 9}
        self.asked: list[tuple[str, str, str | None, object]] = []
        self.keys: list[str | None] = []
        self.go_on = threading.Event()
        self.waiting = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Cut connections are what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        self.server.keys.append(self.headers.get("Idempotency-Key"))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, value = self.server.answers[self.command, self.path].pop(0)
        if status == "cut":
            self.close_connection = True
            return
        if status == "wait":
            self.server.waiting.set()
            self.server.go_on.wait(20)
            status = 200
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(fake) -> Iterator[Server]:
    made = Server(ServerSettings(url=f"http://127.0.0.1:{fake.server_port}"), lambda: "the-key")
    yield made
    made.close()


STATUS = ("POST", "/api/skerry/run/7/status")
JOIN = ("POST", "/api/skerry/join")
WELCOME = {
    "api_key": "k" * 16,
    "name": "node",
    "organization": {"id": 2, "name": "two", "keys": False},
    "collaboration": {"id": 1, "name": "both", "encrypted": True},
}


def test_who_joins_asks_again_for_a_lost_answer_under_one_key(fake, server) -> None:
    fake.answers[JOIN] = [(503, {}), ("cut", {}), (200, WELCOME)]
    assert server.join("secret").api_key == "k" * 16
    assert len(fake.keys) == 3
    assert len(set(fake.keys)) == 1
    assert uuid.UUID(fake.keys[0])


def test_an_invitation_that_is_refused_is_not_asked_for_again(fake, server) -> None:
    fake.answers[JOIN] = [(401, {"msg": "not good"})]
    with pytest.raises(AuthenticationError, match="not good"):
        server.join("secret")


def test_a_server_that_stays_away_is_given_up(fake, server, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    fake.answers[JOIN] = [(503, {})] * 99
    with pytest.raises(ServerUnreachable):
        server.join("secret")
    assert len(fake.keys) < 20


WORK = ("POST", "/api/skerry/node/work")
NOTHING = {"runs": [], "stop": [], "finished_jobs": [], "lease_seconds": 120}


def report(server) -> None:
    server.report(Attempt(7, 1), Status.ACTIVE)


def test_it_logs_in_when_it_has_to(server, fake) -> None:
    fake.answers[STATUS] = [(200, {}), (200, {})]
    report(server)
    report(server)
    assert [path for _, path, _, _ in fake.asked] == ["/api/token/node", STATUS[1], STATUS[1]]
    assert fake.asked[0][3] == {"api_key": "the-key"}
    assert fake.asked[1][2] == "Bearer t1"
    assert fake.asked[1][3] == {"attempt": 1, "status": "active"}


def test_an_expired_token_is_renewed_once(server, fake) -> None:
    fake.answers[STATUS] = [(200, {}), (401, {"msg": "expired"}), (200, {})]
    report(server)
    report(server)
    assert [path for _, path, _, _ in fake.asked].count("/api/token/node") == 2


def test_a_key_that_the_server_does_not_know(server, fake) -> None:
    fake.answers["POST", "/api/token/node"] = [(401, {"msg": "no such key"})]
    with pytest.raises(KeyRefused, match="no such key"):
        server.log_in()


def test_a_fresh_token_that_is_refused_is_not_the_key(server, fake) -> None:
    """As by a replica whose clock is behind the one's that made it."""
    fake.answers[STATUS] = [(401, {"msg": "not yet valid"})]
    with pytest.raises(AuthenticationError, match="not yet valid") as caught:
        report(server)
    assert not isinstance(caught.value, KeyRefused)


@pytest.mark.parametrize(
    ("status", "value", "error"),
    [
        (409, {"msg": "stale"}, Conflict),
        (404, {"msg": "gone"}, NotFound),
        (500, {"msg": "broken"}, ServerError),
        (503, b"busy", ServerUnreachable),
        (500, b"<html>", ServerError),
        (200, b"<html>", ServerError),
        (200, b"[" * 100_000, ServerError),
        (302, {}, ServerUnreachable),
    ],
)
def test_errors(server, fake, status, value, error) -> None:
    fake.answers[STATUS] = [(status, value)]
    with pytest.raises(error):
        report(server)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = Server(ServerSettings(url=f"http://127.0.0.1:{unused.getsockname()[1]}"), lambda: "k")
        with pytest.raises(ServerUnreachable, match="does not answer"):
            server.log_in()


@pytest.mark.parametrize("value", [{}, [], {"access_token": 1}, None])
def test_a_log_in_without_a_token(server, fake, value) -> None:
    fake.answers["POST", "/api/token/node"] = [(200, value)]
    with pytest.raises(ServerError, match="access_token"):
        server.log_in()


def test_what_the_node_holds_is_said(server, fake) -> None:
    fake.answers[WORK] = [(200, NOTHING)]
    work = server.work(3, [Attempt(7, 1)], [5], HEAD, threading.Event())
    assert work.runs == []
    said = fake.asked[-1][3]
    assert (said["capacity"], said["holding"], said["jobs"]) == (
        3,
        [{"run": 7, "attempt": 1, "peers": None}],
        [5],
    )
    assert said["head"] == {"writer": "node-1", "sequence": 3, "hash": "a" * 64}


def test_the_long_call_can_be_interrupted(server, fake) -> None:
    fake.answers[WORK] = [("wait", NOTHING)]
    changed, ended = threading.Event(), []

    def ask() -> None:
        try:
            server.work(0, [], [], HEAD, changed)
        except Interrupted:
            ended.append("interrupted")

    thread = threading.Thread(target=ask)
    thread.start()
    assert fake.waiting.wait(10)
    changed.set()
    server.interrupt()
    thread.join(10)
    assert ended == ["interrupted"]


def test_a_change_before_the_call_is_not_missed(server, fake) -> None:
    fake.answers[WORK] = [("wait", NOTHING)]
    changed = threading.Event()
    changed.set()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        server.work(0, [], [], HEAD, changed)
    assert time.monotonic() - began < 15


def test_a_connection_that_the_server_closed_is_not_used_again(server, fake) -> None:
    fake.answers[WORK] = [("wait", NOTHING)]
    fake.answers[STATUS] = [(200, {}), (200, {})]
    report(server)
    for connection in server._idle:
        connection.sock.shutdown(socket.SHUT_RDWR)
    report(server)


def test_pauses_grow_and_have_an_end() -> None:
    back_off = BackOff(longest=4)
    pauses = [back_off.pause() for _ in range(50)]
    assert pauses[0] <= 0.2
    assert max(pauses) <= 4
    assert len(set(pauses)) > 40
    back_off.reset()
    assert back_off.pause() <= 0.2


def test_clocks_that_differ_by_minutes_are_named_once(caplog) -> None:
    here = 1_800_000_000.0
    clock = ServerClock(lambda: here)
    for apart in (0, 30, -59, 130, 131, 120, 400, 10, -200):
        clock.hear(formatdate(here - apart, usegmt=True))
    for nonsense in (None, "", "yesterday", "Fri, 99 Foo 2026"):
        clock.hear(nonsense)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in said] == [
        "This machine's clock is 130 s ahead of the server's",
        "This machine's clock is 400 s ahead of the server's",
        "This machine's clock is 200 s behind the server's",
    ]


def test_the_servers_clock_is_heard_in_every_answer(server, fake, caplog) -> None:
    server.clock = ServerClock(lambda: time.time() + 500)
    fake.answers[STATUS] = [(200, {})]
    report(server)
    assert "s ahead of the server's" in caplog.text
