"""Services that a node's owner has: a real PostgreSQL, a SPARQL endpoint's double, and one that echoes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import psycopg

PASSWORD = "p@ss/word: of the registry"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Registry:
    """A PostgreSQL with a table of patients, aged 30 to 79, that ``reader`` may read."""

    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://reader@127.0.0.1:{self.port}/registry"

    def connect(self, database: str = "registry") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, dbname=database, autocommit=True
        )


@contextmanager
def postgresql(programs: Path) -> Iterator[Registry]:
    """Runs as its own user, on loopback, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="skerry-postgresql-"))
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    secret, data = folder / "password", folder / "data"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    make = [programs / "initdb", "-D", data, "-A", "scram-sha-256", "--pwfile", secret, "-U", "postgres", "--no-sync"]
    control = [programs / "pg_ctl", "-D", data, "-w", "-t", "120"]
    registry = Registry(free_port())
    options = f"-p {registry.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    try:
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_user)
        start = [*control, "-l", folder / "log", "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        _fill(registry)
        yield registry
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder, **as_user)
        shutil.rmtree(folder)


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
    """Answers with what it is sent; ``connected`` is released for each connection."""
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
