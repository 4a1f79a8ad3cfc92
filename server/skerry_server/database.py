"""The database: how it is opened, brought up to date, and used by one transaction at a time.

SQLite here means WAL, synchronous=FULL (an acknowledged commit survives a power cut), foreign keys, and writers that
take their lock when they begin, so that none fails half-way. PostgreSQL means READ COMMITTED (but for exports, which
are of one moment): services lock the rows whose state they change. A transaction that lost to another one is repeated.
What is special to either stays in this module, in ``locks``, ``sqlite``, ``listening`` and ``tailing``.
"""

from __future__ import annotations

import logging
import math
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, DateTime, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from skerry.errors import ConfigurationError, NotRecorded
from skerry_server import listening, locks, sqlite, tailing
from skerry_server.events import Bus, Hub, NoBus, record
from skerry_server.seats import Seat
from skerry_server.trail import Trail, watch

_LOG = logging.getLogger(__name__)
_TRIES = 6
_FIRST_PAUSE = 0.01
_LOST = frozenset({"40001", "40P01"})
"""PostgreSQL's words for a transaction that lost to another one: not serializable, deadlock."""
_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "10min",
    # Every request reads few rows: preparing for many, which large tables make PostgreSQL do, takes longer than that.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
_CONNECTING = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # What was sent and is not acknowledged: no keepalive is sent meanwhile, and the kernel itself would try for 15 min.
    "tcp_user_timeout": 15_000,
    "application_name": "skerry",
    "options": " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items()),
}
_DISK_FULL = "53100"
_RESTS_SINCE = "skerry_rests_since"
_TRUSTED_SECONDS = 1.0
_Answer = TypeVar("_Answer")
_TAKES_ITS_TIME = text("SET LOCAL idle_in_transaction_session_timeout = 0")
_NOW = select(func.timezone("UTC", func.clock_timestamp(), type_=DateTime()))
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """Hands out transactions; a writing one publishes what it announced once it is committed."""

    def __init__(
        self,
        url: str,
        hub: Hub,
        trail: Trail,
        clock: Callable[[], datetime],
        *,
        connections: int = 16,
        seat: Seat = Seat(),  # noqa: B008 - it does not change
    ) -> None:
        self.engine = _open(url, connections)
        self._hub = hub
        self._bus = _bus(self.engine, hub, clock, seat)
        self.trail = trail
        self._reader = sessionmaker(_reading(self.engine), expire_on_commit=False)
        self._snapshots = sessionmaker(_repeatable(self.engine), expire_on_commit=False)
        self._writer = sessionmaker(self.engine, expire_on_commit=False)
        watch(self._writer)
        if _is_sqlite(self.engine):  # not by an event of the engine, which would cost each statement a look
            event.listen(self._reader, "after_begin", sqlite.begin_to_read)
            event.listen(self._snapshots, "after_begin", sqlite.begin_to_read)
            event.listen(self._writer, "after_begin", sqlite.begin_to_write)
        self._turn: AbstractContextManager[Any] = sqlite.Turn(self.engine) if _is_sqlite(self.engine) else nullcontext()

    def migrate(self, revision: str = "head") -> str:
        """Brings the tables to a revision, this version's by default, and names it; raises ConfigurationError."""
        try:
            with self.engine.begin() as connection:
                locks.hold(connection, "migrations")
                migrate(connection, revision)
                return MigrationContext.configure(connection).get_current_revision() or "base"
        except CommandError as error:
            raise ConfigurationError(
                f"The tables can't be brought to revision {revision}: {error}. A newer version of skerry has used them"
                ": use that one, or let it go back (skerry server migrate --to)."
            ) from error
        except (OperationalError, DatabaseError) as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise ConfigurationError(f"The database {where} can't be used: {error.orig}.") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._reader() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """All statements see the database as it is at the first of them, however long their reader takes."""
        with self._snapshots() as session:
            if not _is_sqlite(self.engine):
                session.execute(_TAKES_ITS_TIME)
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Records and commits when the block ends well, then publishes; otherwise nothing has happened.

        Raises NotRecorded when the audit trail can't be written.
        """
        with self._turn, self._writer() as session:
            yield session
            topics = record(session)
            with self.trail.writing(session):
                self._bus.tell(session, topics)
                session.commit()
        self._hub.publish(topics)
        self._bus.told()

    def repeating(self, transaction: Callable[[], _Answer]) -> _Answer:
        """What the function answers, which is called again where its transaction lost to another one.

        It has to begin its transaction itself. What it raises at the last try is passed on.
        """
        for number in range(_TRIES):
            try:
                return transaction()
            except (DBAPIError, NotRecorded) as error:
                if number == _TRIES - 1 or not _is_lost(error):
                    raise
                _LOG.info("a transaction lost to another one and is repeated: %s", error)
            time.sleep(random.uniform(0.5, 1) * _FIRST_PAUSE * 2**number)  # noqa: S311 - spreads writers
        raise AssertionError

    def listen(self) -> None:
        """From now on the hub hears of what other processes of this server announce. Raises ConfigurationError."""
        self._bus.start()

    @property
    def listens(self) -> bool:
        """Whether everything that was announced has been heard, as far as is known."""
        return self._bus.connected

    def back_up(self, file: Path) -> None:
        """Copies SQLite's database as it is at one moment, while others go on. Raises ConfigurationError."""
        if not _is_sqlite(self.engine):
            raise ConfigurationError("This server's database is PostgreSQL: back it up with pg_dump -Fc.")
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(file)) as copy, self.engine.connect() as connection:
                cast("sqlite3.Connection", connection.connection.dbapi_connection).backup(copy)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"The database can't be copied to {file}: {error}.") from error

    @property
    def at_once(self) -> int:
        """How many requests gain by being worked on at once: SQLite works in this process, PostgreSQL beside it."""
        return 1 if _is_sqlite(self.engine) else 2

    def answers(self) -> bool:
        """Whether it can be asked at this moment."""
        try:
            with self._reader() as session:
                return session.scalar(select(1)) == 1
        except SQLAlchemyError as error:
            _LOG.warning("the database does not answer: %s", error)
            return False

    def now(self) -> datetime | None:
        """UTC without a zone by PostgreSQL's clock; SQLite has none but this machine's."""
        if _is_sqlite(self.engine):
            return None
        with self._reader() as session:
            return session.scalar(_NOW)

    def close(self) -> None:
        self._bus.stop()
        self.engine.dispose()


def migrate(connection: Connection, revision: str = "head") -> None:
    """Brings the tables to a revision, forwards or backwards, in the connection's transaction."""
    if connection.dialect.name == "sqlite":
        sqlite.begin(connection, "BEGIN IMMEDIATE")
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    here = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    passed = {one.revision for one in script.walk_revisions("base", here)} | {"base"} if here else set()
    (command.downgrade if revision in passed else command.upgrade)(config, revision)


def _is_lost(error: DBAPIError | NotRecorded) -> bool:
    """Whether the same transaction may go well the next time: it met another one."""
    found = error.__cause__ if isinstance(error, NotRecorded) else error
    return isinstance(found, IntegrityError) or sqlstate(found) in _LOST


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code of the error, None of anything else."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def is_full(error: BaseException) -> bool:
    """Whether the database's disk is."""
    found = getattr(error, "orig", None)
    return getattr(found, "sqlite_errorname", None) == "SQLITE_FULL" or sqlstate(error) == _DISK_FULL


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _bus(engine: Engine, hub: Hub, clock: Callable[[], datetime], seat: Seat) -> Bus:
    if not _is_sqlite(engine):
        return listening.Bus(engine, hub, clock, _CONNECTING)
    return NoBus() if seat.is_alone else tailing.Bus(engine, hub, seat)


def _reading(engine: Engine) -> Engine:
    """On PostgreSQL each statement by itself: READ COMMITTED looks anew at each, and a transaction costs two calls."""
    return engine if _is_sqlite(engine) else engine.execution_options(isolation_level="AUTOCOMMIT")


def _repeatable(engine: Engine) -> Engine:
    """As SQLite does unasked: all statements of a transaction see what the first one saw."""
    return engine if _is_sqlite(engine) else engine.execution_options(isolation_level="REPEATABLE READ")


def _open(text: str, connections: int) -> Engine:
    try:
        url = _with_driver(make_url(text))
        is_sqlite = url.get_backend_name() == "sqlite"
        options = {"connect_args": {"timeout": sqlite.BUSY_SECONDS} if is_sqlite else _CONNECTING}
        engine = create_engine(url, pool_size=connections, max_overflow=connections, pool_use_lifo=True, **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError('For PostgreSQL, install its driver: pip install "skerry[postgresql]".') from error
    except (ArgumentError, ImportError) as error:
        raise ConfigurationError(f'"database" is not a database URL that this server can use: {error}') from error
    if is_sqlite:
        event.listen(engine, "connect", sqlite.set_up)
    else:
        _ping_rested(engine)
    return engine


def _ping_rested(engine: Engine) -> None:
    """A connection that has rested may be gone: it is tried first. One just used is not, which saves a call each time;
    where it is gone all the same, that is an error like any other, and no connection of the pool is used again.
    """

    def returned(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_RESTS_SINCE] = time.monotonic()

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        rests_since = record.info.get(_RESTS_SINCE, math.inf)
        if time.monotonic() - rests_since > _TRUSTED_SECONDS and not _answers_ping(engine, connection):
            raise InvalidatePoolError

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", taken)


def _answers_ping(engine: Engine, connection: DBAPIConnection) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        return False


def _with_driver(url: URL) -> URL:
    """PostgreSQL by psycopg 3, by whichever of its names. Raises ArgumentError for what is neither it nor SQLite."""
    if url.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if url.database in {None, "", ":memory:"}:
            raise ArgumentError("What is in memory ends with the server: name a file.")
        return url
    raise ArgumentError(f'"{url.drivername}" is none of sqlite and postgresql.')
