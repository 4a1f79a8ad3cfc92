"""Relays: what leads out of a run's namespace goes where the owner said, and nowhere else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from federation import read_all, wait_for

from skerry_proxy import destinations
from skerry_proxy.destinations import Destination
from skerry_proxy.relays import MOST_CONNECTIONS, Lead, Relay

pytestmark = pytest.mark.unit


class Echo:
    """A service on loopback that answers with what it is sent, and counts its connections."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                connection.sendall(piece)

    def close(self) -> None:
        for one in (self.listener, *self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def open_relay(tmp_path) -> Iterator:
    made: list[Relay] = []

    def make(*targets: str, egress: bool = False, idle: float = 60) -> tuple[Relay, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        lead = Lead("registry", tuple(Destination.parse(one) for one in targets), egress)
        relay = Relay(7, lead, listener, tmp_path, idle)
        relay.start()
        made.append(relay)
        return relay, port

    yield make
    for relay in made:
        relay.close()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("relay-")])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def ask(port: int, request: bytes) -> bytes:
    """The whole answer."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_all(connection)


# --- forwarders ------------------------------------------------------------------------------------------


def test_bytes_go_both_ways_and_are_counted(open_relay, echo) -> None:
    relay, port = open_relay(f"127.0.0.1:{echo.port}")
    sent = bytes(range(256)) * 4096
    with connect(port) as connection:
        threading.Thread(target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))).start()
        assert read_all(connection) == sent
    counts = {"connections": 1, "refused": 0, "sent": len(sent), "received": len(sent)}
    wait_for(lambda: relay.tally == {"name": "registry", **counts})


def test_a_destination_that_does_not_answer(open_relay, echo) -> None:
    """The connection ends, and nothing else is tried."""
    echo.close()
    relay, port = open_relay(f"127.0.0.1:{echo.port}")
    assert ask(port, b"") == b""
    wait_for(lambda: relay.tally["refused"] == 1)


def test_a_relay_has_so_many_connections(open_relay, echo) -> None:
    relay, port = open_relay(f"127.0.0.1:{echo.port}")
    held = [connect(port) for _ in range(MOST_CONNECTIONS)]
    try:
        wait_for(lambda: relay.tally["connections"] == MOST_CONNECTIONS)
        with connect(port) as one_more:
            assert read_all(one_more) == b""
        assert relay.tally["refused"] == 1
    finally:
        for connection in held:
            connection.close()


def test_its_end_ends_all_connections(open_relay, echo) -> None:
    relay, port = open_relay(f"127.0.0.1:{echo.port}")
    with connect(port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        relay.close()
        assert read_all(connection) == b""
    with pytest.raises(OSError, match=r"refused|reset"):
        ask(port, b"hello")


def test_both_sides_silent_for_too_long(open_relay, echo) -> None:
    _, port = open_relay(f"127.0.0.1:{echo.port}", idle=1)
    with connect(port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        assert connection.recv(1) == b""


# --- egress ----------------------------------------------------------------------------------------------


def request(target: str, *headers: str, method: str = "CONNECT", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{method} {target} {version}", "Host: x", *headers, "", ""]).encode("latin-1")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_named_destination(open_relay, echo, version) -> None:
    relay, port = open_relay(f"127.0.0.1:{echo.port}", egress=True)
    with connect(port) as connection:
        connection.sendall(request(f"127.0.0.1:{echo.port}", version=version))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        assert status_of(answer) == 200
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
    wait_for(lambda: relay.tally["received"] == 5)


NOT_NAMED = [
    "127.0.0.1:{other}",
    "127.0.0.2:{port}",
    "localhost:{port}",
    "[::1]:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[::ffff:7f00:1]:{port}",
    "api.example.org:80",
    "www.api.example.org:443",
    "api.example.org.evil.test:443",
    "xapi.example.org:443",
]
MALFORMED = [
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:0{port}",
    "127.0.0.1:+{port}",
    "127.0.0.1:99999",
    "127.0.0.1:{port}/",
    "127.1:{port}",
    "0x7f.0.0.1:{port}",
    "0x7f000001:{port}",
    "2130706433:{port}",
    "0177.0.0.1:{port}",
    "127.0.0.1.:{port}",
    "user@127.0.0.1:{port}",
    "user:password@127.0.0.1:{port}",
    "127.0.0.1:{port}@api.example.org:443",
    "127.0.0.1:{port},api.example.org:443",
    "api.example.org.:443",
    "api%2eexample.org:443",
    "api.example.org#:443",
    "::1:{port}",
    "[::1%25lo]:{port}",
    "[127.0.0.1]:{port}",
    "http://127.0.0.1:{port}",
    "api.examplé.org:443",
    "*:443",
    ":443",
    "/",
]


@pytest.mark.parametrize(("target", "status"), [*((t, 403) for t in NOT_NAMED), *((t, 400) for t in MALFORMED)])
def test_all_other_destinations_are_refused(open_relay, echo, target, status) -> None:
    relay, port = open_relay(f"127.0.0.1:{echo.port}", "api.example.org:443", egress=True)
    answer = ask(port, request(target.format(port=echo.port, other=echo.port + 1)))
    assert status_of(answer) == status
    wait_for(lambda: relay.tally["refused"] == 1)
    assert echo.connections == []


OTHER_REQUESTS = {
    "a page by a proxy": (request("http://127.0.0.1:{port}/", method="GET"), 405),
    "a path": (request("/", method="GET"), 405),
    "a post": (request("http://127.0.0.1:{port}/", "Content-Length: 2", method="POST") + b"{}", 405),
    "a body": (request("127.0.0.1:{port}", "Content-Length: 2"), 400),
    "an empty body": (request("127.0.0.1:{port}", "Content-Length: 0"), 400),
    "chunks": (request("127.0.0.1:{port}", "Transfer-Encoding: chunked"), 400),
    "an upgrade": (request("127.0.0.1:{port}", "Upgrade: h2c"), 400),
    "two hosts": (request("127.0.0.1:{port}", "Host: y"), 400),
    "bytes ahead of the answer": (request("127.0.0.1:{port}") + b"\x16\x03\x01", 400),
    "a second request behind it": (request("127.0.0.1:{port}") + request("127.0.0.1:{port}"), 400),
    "a bare line feed": (b"CONNECT 127.0.0.1:{port} HTTP/1.1\nHost: x\r\n\r\n", 400),
    "a large head": (request("127.0.0.1:{port}", "X-A: " + "b" * 17_000), 431),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "SOCKS": (b"\x05\x01\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", OTHER_REQUESTS)
def test_nothing_but_a_plain_connect(open_relay, echo, name) -> None:
    data, status = OTHER_REQUESTS[name]
    _, port = open_relay(f"127.0.0.1:{echo.port}", egress=True)
    assert status_of(ask(port, data.replace(b"{port}", str(echo.port).encode()))) == status
    assert echo.connections == []


PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.17.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - an address to be refused
    "224.0.0.1",
    "::1",
    "::ffff:10.0.0.1",
    "fe80::1",
    "fd00::1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("beside", [[], ["93.184.215.14"]])
def test_a_name_that_leads_inside(open_relay, echo, monkeypatch, address, beside) -> None:
    """As a resolver answers whose owner wants to get at the node's network; a public address beside it is no help."""
    resolve(monkeypatch, [*beside, address])
    _, port = open_relay(f"api.example.org:{echo.port}", egress=True)
    answer = ask(port, request(f"api.example.org:{echo.port}"))
    assert status_of(answer) == 403
    assert b"private network" in answer
    assert echo.connections == []


def test_a_name_is_resolved_once(open_relay, echo, monkeypatch) -> None:
    """What was looked at is what is connected to: a second answer of the resolver is never asked for."""
    asked = resolve(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    dialled: list[tuple] = []

    def connect_to(address, timeout):
        dialled.append(address)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(destinations.socket, "create_connection", connect_to)
    relay, port = open_relay(f"api.example.org:{echo.port}", egress=True)
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request(f"API.Example.ORG:{echo.port}"))
        assert status_of(read_all(connection)) == 502
    assert asked == ["api.example.org"]
    assert dialled == [("93.184.215.14", echo.port)]
    wait_for(lambda: relay.tally["refused"] == 1)


def resolve(monkeypatch, *answers: list[str]) -> list[str]:
    """A resolver that gives these answers, one after the other; the names that it was asked for."""
    asked: list[str] = []
    waiting = list(answers)

    def look_up(destination: Destination) -> list[str]:
        asked.append(destination.host)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    monkeypatch.setattr(destinations, "_resolve", look_up)
    return asked


# --- what the node sends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "socks", "name": "x", "destinations": []},
        {"kind": "forward", "name": "x", "destinations": []},
        {"kind": "forward", "name": "x", "destinations": ["a:1", "b:2"]},
        {"kind": "forward", "name": "x", "destinations": "a:1"},
        {"kind": "egress", "name": "x", "destinations": [1]},
        {"kind": "egress", "name": "x", "destinations": ["*.example.org:443"]},
        {"kind": "egress", "name": "x", "destinations": ["example.org"]},
    ],
)
def test_a_relay_that_is_none(value) -> None:
    with pytest.raises(ValueError, match=r"relay|host"):
        Lead.parse(value)


@pytest.mark.parametrize("text", ["db.example.org:5432", "10.1.2.3:5432", "[fd00::1]:443", "db:1"])
def test_a_destination_is_written_as_it_is_read(text) -> None:
    assert str(Destination.parse(text)) == text
    lead = Lead("x", (Destination.parse(text),))
    assert Lead.parse(lead.dump()) == lead
