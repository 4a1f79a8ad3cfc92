"""The database: how it is opened, brought up to date, and used by one transaction at a time.

SQLite here means WAL, synchronous=FULL (an acknowledged commit survives a power cut), foreign keys, and writers that
take their lock when they begin, so that none fails half-way. What is special to it stays in this module.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from skerry.errors import ConfigurationError
from skerry_server.events import Hub, announced
from skerry_server.trail import Trail, watch

_WRITES = "skerry_writes"
_BUSY_SECONDS = 30
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """Hands out transactions; a writing one publishes what it announced once it is committed."""

    def __init__(self, url: str, hub: Hub, trail: Trail, *, connections: int = 16) -> None:
        self.engine = _open(url, connections)
        self._hub = hub
        self.trail = trail
        self._reader = sessionmaker(self.engine, expire_on_commit=False)
        self._writer = sessionmaker(self.engine.execution_options(**{_WRITES: True}), expire_on_commit=False)
        watch(self._writer)
        # SQLite has one writer at a time and lets the others poll for it; a lock of our own queues them instead.
        self._turn: AbstractContextManager[Any] = threading.Lock() if _is_sqlite(self.engine) else nullcontext()

    def migrate(self) -> None:
        """Brings the tables to this version's; raises ConfigurationError when the database can't be used."""
        try:
            with self.engine.execution_options(**{_WRITES: True}).begin() as connection:
                migrate(connection)
        except (OperationalError, DatabaseError) as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise ConfigurationError(f"The database {where} can't be used: {error.orig}.") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._reader() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Records and commits when the block ends well, then publishes; otherwise nothing has happened.

        Raises NotRecorded when the audit trail can't be written.
        """
        with self._turn, self._writer() as session:
            yield session
            topics = announced(session)
            with self.trail.writing(session):
                session.commit()
        self._hub.publish(topics)

    def close(self) -> None:
        self.engine.dispose()


def migrate(connection: Connection, revision: str = "head") -> None:
    """Runs the migrations on an open transaction."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _open(url: str, connections: int) -> Engine:
    try:
        dialect = make_url(url).get_backend_name()
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS}} if dialect == "sqlite" else {}
        engine = create_engine(url, pool_size=connections, max_overflow=connections, **options)
    except (ArgumentError, ImportError) as error:
        raise ConfigurationError(f'"database" is not a database URL that this server can use: {error}') from error
    if _is_sqlite(engine):
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_sqlite does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
