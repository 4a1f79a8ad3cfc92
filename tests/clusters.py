"""A real PostgreSQL of the tests' own, and empty databases in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

PASSWORD = "p@ss/word: of the cluster"
_LAX = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


_GIVEN: set[int] = set()


def free_port() -> int:
    """Another one each time, though nobody listens at the earlier ones yet."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


@dataclass(frozen=True)
class Cluster:
    """Runs as its own user and listens on loopback."""

    programs: Path
    folder: Path
    port: int
    options: str

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, dbname=database, autocommit=True
        )

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def make_database(self, template: str = "template1") -> str:
        name = f"d{uuid.uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return name

    def drop_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def start(self) -> None:
        listen = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= {self.options}"
        self._control("-l", self.folder / "log", "-o", listen, "start", check=True)

    def stop(self, mode: str = "fast") -> None:
        self._control("-m", mode, "stop")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Its processes stand still: connections stay, and nothing on them is answered."""
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        each = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        try:
            for pid in each:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in each:
                os.kill(pid, signal.SIGCONT)

    def run(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """One of PostgreSQL's programs, as the cluster's user."""
        command = [self.programs / program, *arguments]
        return subprocess.run(command, cwd=self.folder, **_as_user(), **options)  # noqa: PLW1510 - the caller says

    def _control(self, *arguments: str | Path, check: bool = False) -> None:
        control = ("-D", self.folder / "data", "-w", "-t", "120", *arguments)
        self.run("pg_ctl", *control, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster(programs: Path, *, durable: bool = False, options: str = "") -> Iterator[Cluster]:
    """Until the block ends; what is committed survives a power cut only if ``durable``."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() and not durable else None
    folder = Path(tempfile.mkdtemp(prefix="skerry-postgresql-", dir=memory))
    if _as_user():
        shutil.chown(folder, "postgres", "postgres")
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    made = Cluster(programs, folder, free_port(), options if durable else f"{_LAX} {options}")
    login = ("-A", "scram-sha-256", "--pwfile", secret, "-U", "postgres", "--no-sync")
    try:
        made.run("initdb", "-D", folder / "data", *login, check=True, capture_output=True)
        made.start()
        yield made
    finally:
        made.stop("immediate")
        shutil.rmtree(folder)


def _as_user() -> dict[str, Any]:
    """PostgreSQL refuses to be root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
