"""Services that a node's owner has: a real PostgreSQL, a SPARQL endpoint's double, and one that echoes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import psycopg
from clusters import PASSWORD, Cluster, cluster


@dataclass(frozen=True)
class Registry:
    """A PostgreSQL with a table of patients, aged 30 to 79, that ``reader`` may read."""

    cluster: Cluster

    @property
    def port(self) -> int:
        return self.cluster.port

    @property
    def uri(self) -> str:
        return f"postgresql://reader@127.0.0.1:{self.port}/registry"

    def connect(self, database: str = "registry") -> psycopg.Connection:
        return self.cluster.connect(database)


@contextmanager
def postgresql(programs: Path) -> Iterator[Registry]:
    """Runs as its own user, on loopback, until the block ends."""
    with cluster(programs) as made:
        registry = Registry(made)
        _fill(registry)
        yield registry


def _fill(registry: Registry) -> None:
    with registry.connect("postgres") as connection:
        connection.execute("CREATE DATABASE registry")
        # The statement takes no parameters; the text is a constant of this file.
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    with registry.connect() as connection:
        connection.execute("CREATE TABLE patients AS SELECT id, 29 + id AS age FROM generate_series(1, 50) AS id")
        connection.execute("GRANT SELECT ON patients TO reader")


@dataclass
class Endpoint:
    """What a SPARQL service was asked, and by which host's name."""

    port: int = 0
    queries: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def sparql() -> Iterator[Endpoint]:
    """Answers each query with the same three rows of CSV."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            endpoint.queries += parse_qs(body)["query"]
            endpoint.hosts.append(self.headers["Host"])
            endpoint.authorizations.append(self.headers["Authorization"])
            answer = b"age\r\n40\r\n50\r\n60\r\n"
            self.send_response(200 if self.path == "/repositories/registry" else 404)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()


@dataclass
class Echo:
    port: int
    connected: threading.Semaphore


@contextmanager
def echo() -> Iterator[Echo]:
    """Answers with what it is sent; ``connected`` is released for each answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    service = Echo(listener.getsockname()[1], threading.Semaphore(0))
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                connection.sendall(piece)
                service.connected.release()

    def listen() -> None:
        while True:
            try:
                connections.append(listener.accept()[0])
            except OSError:
                return
            threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield service
    finally:
        for one in (listener, *connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
