"""Each harm that the proxy can do, as a client and a server see it."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator

import pytest
from fault_proxy import FaultProxy, Harm

pytestmark = pytest.mark.unit
BODY = b"b" * 100_000


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[int] = []

    def handle_error(self, *_) -> None:
        """Cut requests are what this is about."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(len(body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    made = FaultProxy(server.server_address[1])
    made.start()
    yield made
    made.close()


def post(proxy: FaultProxy, path: str = "/api/skerry/run/7/finish", body: bytes = BODY) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_harm_all_goes_through_and_the_moments_are_told(proxy) -> None:
    moments: list[tuple] = []
    proxy.notice = lambda moment, request: moments.append((moment, request.run, request.ends))
    assert post(proxy) == (200, BODY)
    assert moments == [("head", 7, True), ("half", 7, True), ("answered", 7, True)]
    post(proxy, "/api/skerry/run/7/status")
    assert len(moments) == 3


@pytest.mark.parametrize("harm", [Harm.DELAY, Harm.REORDER])
def test_what_comes_late_comes(proxy, harm) -> None:
    proxy.pick = lambda _: harm
    assert post(proxy) == (200, BODY)


@pytest.mark.parametrize(
    ("harm", "heard"),
    [
        (Harm.RESET, 0),
        (Harm.CUT_REQUEST, None),
        (Harm.CUT_ANSWER, 1),
        (Harm.LOSE_ANSWER, 1),
    ],
)
def test_what_is_cut_has_no_answer(proxy, server, harm, heard) -> None:
    proxy.pick = lambda _: harm
    with pytest.raises((OSError, http.client.HTTPException)):
        post(proxy)
    assert all(len(BODY) == size for size in server.got) if heard else not [s for s in server.got if s == len(BODY)]


def test_a_replay_is_done_twice_and_answered_once(proxy, server) -> None:
    proxy.pick = lambda _: Harm.REPLAY
    assert post(proxy) == (200, BODY)
    assert server.got == [len(BODY)] * 2


@pytest.mark.parametrize(("harm", "status"), [("502", 502), ("503", 503), ("429", 429), ("html", 502)])
def test_what_is_refused_never_reaches_the_server(proxy, server, harm, status) -> None:
    proxy.pick = lambda _: Harm(harm)
    got, body = post(proxy)
    assert (got, server.got) == (status, [])
    assert body.startswith(b"<html") == (harm == "html")


@pytest.mark.parametrize(("towards", "heard"), [("server", 0), ("client", 1)])
def test_a_partition_in_each_direction(proxy, server, towards, heard) -> None:
    proxy.cut_towards = towards
    answers: list = []
    moments: list[str] = []
    proxy.notice = lambda moment, _: moments.append(moment)
    thread = threading.Thread(target=lambda: answers.append(post(proxy)))
    thread.start()
    thread.join(0.5)
    assert answers == []
    assert len(server.got) == heard
    proxy.cut_towards = None
    thread.join(10)
    assert answers == [(200, BODY)]


def test_a_strike_while_the_bytes_are_held(proxy, server) -> None:
    """Whoever is told of the half can look at what the server has by then."""
    seen: list[int] = []
    proxy.notice = lambda moment, _: seen.append(len(server.got)) if moment == "half" else None
    post(proxy)
    assert seen == [0]
