"""A server on a fresh database, with a clock to turn."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from audited_transactions import watch_transactions
from clusters import Cluster
from flask.testing import FlaskClient
from server_federation import PASSWORD, Api, Clock, Federation, make_settings
from sqlalchemy import event

from skerry_server import passwords
from skerry_server.app import create_app
from skerry_server.server import Server, open_server
from skerry_server.services.users import found_root


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """The real cost is what the passwords' own test looks at."""
    quick = passwords.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", quick)
        yield


@pytest.fixture(scope="session")
def _in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that costs no disk where there is one: every commit is synced."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path_factory.mktemp("server")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Whatever a server does, it does on both."""
    return str(request.param)


@dataclass(frozen=True)
class Founded:
    """A state folder and a database with the federation in it, made once and copied for each test; and its tokens."""

    folder: Path
    facts: dict[str, Any]
    cluster: Cluster | None = None
    database: str | None = None

    @contextmanager
    def copy(self, folder: Path, clock: Clock) -> Iterator[Server]:
        shutil.copytree(self.folder, folder)
        with _database(self.cluster, self.database or "template1") as url:
            server = open_server(make_settings(folder, database=url), clock)
            yield server
            server.database.close()
        shutil.rmtree(folder)


@contextmanager
def _database(cluster: Cluster | None, template: str = "template1") -> Iterator[str | None]:
    """The URL of a database of its own; None for SQLite's, which lies in the state folder."""
    if cluster is None:
        yield None
        return
    name = cluster.make_database(template)
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture(scope="session")
def _founded(
    engine_name: str, _in_memory: Path, _quick_passwords: None, request: pytest.FixtureRequest
) -> Iterator[Founded]:
    folder = _in_memory / f"founded-{engine_name}"
    cluster = request.getfixturevalue("postgresql_cluster") if engine_name == "postgresql" else None
    with _database(cluster) as url:
        server = open_server(make_settings(folder, database=url))
        with server.database.writing() as session:
            found_root(session, "root", PASSWORD, "organization 1")
        federation = Federation(server, create_app(server).test_client(), Clock())
        federation.found()
        server.database.close()
        yield Founded(folder, federation.facts, cluster, server.database.engine.url.database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(_founded: Founded, _in_memory: Path, clock: Clock) -> Iterator[Server]:
    with _founded.copy(_in_memory / uuid.uuid4().hex, clock) as server:
        unrecorded = watch_transactions(server.database.engine)
        yield server
    assert unrecorded == []


@pytest.fixture
def client(server: Server) -> FlaskClient:
    return create_app(server).test_client()


@pytest.fixture
def federation(server: Server, client: FlaskClient, clock: Clock, _founded: Founded) -> Federation:
    return Federation(server, client, clock, **_copied(_founded.facts))


def _copied(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(fact) if isinstance(fact, dict) else fact for name, fact in facts.items()}


@pytest.fixture
def researcher(federation: Federation) -> Api:
    return federation.make_user()


@pytest.fixture
def statements(server: Server) -> Iterator[Callable[[], int]]:
    """Counts what the database is asked."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    event.listen(server.database.engine, "before_cursor_execute", note)
    yield lambda: count
    event.remove(server.database.engine, "before_cursor_execute", note)
