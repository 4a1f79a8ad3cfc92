"""The tables and their migrations, transactions, and where payloads lie."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from server_federation import Api, Federation, make_settings, plain
from sqlalchemy import (
    Connection,
    Engine,
    Inspector,
    NullPool,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from skerry.errors import ConfigurationError
from skerry.wire import INLINE_LIMIT
from skerry_server import serve
from skerry_server.database import Database, migrate
from skerry_server.errors import Busy, TooLarge
from skerry_server.events import Hub, announce
from skerry_server.models import Base, Event, Organization, Payload, Role, Rule, Run, task_database, utcnow
from skerry_server.payloads import PayloadStore
from skerry_server.server import Server, open_server
from skerry_server.services import labels, work
from skerry_server.services.users import write_policy
from skerry_server.sweeping import Sweeper
from skerry_server.trail import NotRecorded, Trail

pytestmark = pytest.mark.unit
NUL = [{"label": "age"}, {"label": "age", "arguments": {"nul": "\0"}}]
"""The databases of a task."""


def test_the_migrations_make_the_models_tables() -> None:
    with create_engine("sqlite://").begin() as connection:
        migrate(connection)
        assert differences(connection) == []
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()
    made = {name: sql for name, sql in rows if name in Base.metadata.tables}
    assert set(made) == set(Base.metadata.tables)
    for name, sql in made.items():
        assert ("AUTOINCREMENT" in sql) is ("id" in Base.metadata.tables[name].c), name


def differences(connection: Connection) -> list[Any]:
    """Between the tables and the models, without the indices that one database does not get, or can't tell of."""

    def belongs(found: Any, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
        if kind == "index" and str(name).endswith("_folded"):
            return False
        foreign = connection.dialect.name == "sqlite" and kind == "index" and not reflected
        return not (foreign and found.dialect_kwargs.get("postgresql_ops"))

    context = MigrationContext.configure(connection, opts={"include_object": belongs})
    return list(compare_metadata(context, Base.metadata))


def test_migrating_again_changes_nothing(server: Server) -> None:
    before = schema(server.database.engine)
    server.database.migrate()
    assert schema(server.database.engine) == before


def test_the_migrations_make_the_models_tables_on_both(server: Server) -> None:
    with server.database.engine.connect() as connection:
        assert differences(connection) == []


def test_the_migrations_go_all_the_way_back_and_forth(server: Server) -> None:
    other = open_server(server.settings)  # whose transactions are not watched: no caller asked for these
    before = schema(other.database.engine)
    with other.database.engine.begin() as connection:
        migrate(connection, "base")
    assert list(schema(other.database.engine)) == ["alembic_version"]
    other.database.migrate()
    assert schema(other.database.engine) == before
    other.database.close()


def test_tasks_from_before_are_found_by_their_databases(federation: Federation, researcher: Api) -> None:
    """Also those with a NUL character beside the label, which PostgreSQL's own functions can't read."""
    made = [federation.make_task(researcher, databases=some)["id"] for some in ([], NUL, [{"label": "b"}, *NUL])]
    other = open_server(federation.server.settings)
    other.database.migrate("0015")
    other.database.migrate()
    other.database.close()
    assert [task["id"] for task in researcher.get("task", database="age", sort="id")["data"]] == made[1:]


def test_tasks_of_a_process_of_the_version_before_are_found_too(federation: Federation, researcher: Api) -> None:
    other, steady = open_server(federation.server.settings, federation.clock), [0.0]  # unwatched, as above
    sweeper = Sweeper(other, lambda: steady[0])
    made = [federation.make_task(researcher, databases=some)["id"] for some in ([], NUL, [{"label": "b"}, *NUL])]
    for later in (0, 3700):
        with other.database.writing() as session:
            session.connection().execute(delete(task_database))
        assert researcher.get("task", database="age")["data"] == []
        steady[0] += later
        federation.clock.turn(seconds=later)
        sweeper.sweep()
        assert [task["id"] for task in researcher.get("task", database="age", sort="id")["data"]] == made[1:]
        assert [task["id"] for task in researcher.get("task", database="b")["data"]] == made[2:]
    other.database.close()


AWAY = OperationalError("SELECT 1", None, Exception("it restarts\nfor long"))


def _not_recorded(cause: Exception) -> NotRecorded:
    error = NotRecorded("Nothing is changed.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AWAY, "sweeping is put off: it restarts"),
        (PoolTimeout("it restarts\nfor long"), "sweeping is put off: it restarts"),
        (_not_recorded(AWAY), "sweeping is put off: it restarts"),
        (Busy("it restarts"), "sweeping is put off: it restarts"),
        (RuntimeError("it restarts"), "sweeping failed; it is tried again"),
    ],
)
def test_sweeping_is_put_off_while_the_database_is_away(
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    words: str,
) -> None:
    """It goes on afterwards; a traceback is for what nobody foresaw."""
    swept: list[Sweeper] = []

    def sweep(sweeper: Sweeper) -> None:
        swept.append(sweeper)
        if len(swept) == 1:
            raise error
        raise asyncio.CancelledError

    monkeypatch.setattr(serve, "_SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(Sweeper, "sweep", sweep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(serve.sweep_regularly(federation.server))
    assert len(swept) == 2
    [record] = [record for record in caplog.records if record.name == serve.__name__]
    assert record.getMessage() == words
    assert bool(record.exc_info) is isinstance(error, RuntimeError)


def test_processes_that_look_for_such_tasks_at_once_do_no_harm(
    federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = federation.make_task(researcher, databases=NUL)["id"]
    both = [open_server(federation.server.settings, federation.clock) for _ in range(2)]
    with both[0].database.writing() as session:
        session.connection().execute(delete(task_database))
    are_missing = labels.are_missing

    def look(session: Session) -> bool:
        """The other one is done between this one's look and its writing."""
        found = are_missing(session)
        monkeypatch.setattr(labels, "are_missing", are_missing)
        if found:
            both[1].label_tasks()
        return found

    monkeypatch.setattr(labels, "are_missing", look)
    both[0].label_tasks()
    assert [one["id"] for one in researcher.get("task", database="age")["data"]] == [task]
    for server in both:
        server.database.close()


def schema(engine: Engine) -> dict[str, list[str]]:
    """Of each table what it consists of."""
    found = inspect(engine)
    return {
        table: sorted(map(str, [*found.get_columns(table), *found.get_foreign_keys(table), *_indexes(found, table)]))
        for table in found.get_table_names()
        if table != "sqlite_sequence"
    }


def _indexes(found: Inspector, table: str) -> list[tuple[str | None, list[str | None]]]:
    return [(index["name"], index["column_names"]) for index in found.get_indexes(table)]


def test_the_database_is_set_up_to_keep_what_it_acknowledged(server: Server) -> None:
    if server.settings.database is not None:
        with server.database.reading() as session:
            assert session.execute(text("SHOW timezone")).scalar() == "UTC"
            assert session.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
        return
    with server.database.reading() as session:
        found = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")}
        assert found == {"journal_mode": "wal", "synchronous": 2}
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1


@pytest.mark.parametrize("engine_name", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True)
def test_who_reads_holds_no_transaction(server: Server) -> None:
    """It would cost two calls more, and keep nothing the same: each statement looks anew. A writer's is one."""
    statuses = []
    for begin in (server.database.reading, server.database.writing):
        with begin() as session:
            session.scalar(select(1))
            statuses.append(session.connection().connection.dbapi_connection.info.transaction_status.name)
    assert statuses == ["IDLE", "INTRANS"]


def cut_off(server: Server) -> int:
    """Ends a connection that waits in the pool; its process."""
    with server.database.reading() as session:
        process = session.scalar(select(func.pg_backend_pid()))
    with create_engine(server.database.engine.url, poolclass=NullPool).connect() as beside:
        assert beside.scalar(select(func.pg_terminate_backend(process, 30_000)))
    return int(process)


@pytest.mark.parametrize("engine_name", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True)
def test_a_connection_that_was_cut_off_while_it_rested_is_replaced(server: Server, monkeypatch) -> None:
    monkeypatch.setattr("skerry_server.database._TRUSTED_SECONDS", 0.0)
    process = cut_off(server)
    with server.database.reading() as session:
        assert session.scalar(select(func.pg_backend_pid())) != process


@pytest.mark.parametrize("engine_name", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True)
def test_one_that_was_just_used_fails_once(server: Server, monkeypatch) -> None:
    monkeypatch.setattr("skerry_server.database._TRUSTED_SECONDS", 60.0)
    cut_off(server)
    with pytest.raises(OperationalError), server.database.reading() as session:
        session.scalar(select(1))
    with server.database.reading() as session:
        assert session.scalar(select(1)) == 1


def test_who_could_not_begin_changes_nothing_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would take each further statement as a transaction of its own."""
    monkeypatch.setattr("skerry_server.sqlite.BUSY_SECONDS", 0.05)
    file = tmp_path / "x.sqlite"
    database = Database(f"sqlite:///{file}", Hub(), Trail("server-1", utcnow), utcnow)
    database.migrate()
    add = text("INSERT INTO organization (name) VALUES ('later')")

    def try_twice(beside: sqlite3.Connection) -> None:
        with database.writing() as session:
            with pytest.raises(OperationalError, match="locked"):
                session.execute(add)
            beside.execute("ROLLBACK")
            session.execute(add)

    with closing(sqlite3.connect(file, isolation_level=None)) as beside:
        beside.execute("BEGIN IMMEDIATE")
        with pytest.raises(PendingRollbackError):
            try_twice(beside)
        assert beside.execute("SELECT name FROM organization WHERE name = 'later'").fetchall() == []
    database.close()


def test_a_failed_transaction_leaves_nothing_and_tells_nobody(server: Server) -> None:
    ticket = server.hub.ticket(["topic"])

    def fail() -> None:
        with server.database.writing() as session:
            session.add(Organization(name="half"))
            announce(session, ["topic"], utcnow())
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with server.database.reading() as session:
        assert session.scalar(select(Organization.id).where(Organization.name == "half")) is None
        assert session.scalars(select(Event)).all() == []
    assert server.hub.ticket(["topic"]) == ticket


def test_a_commit_tells_and_leaves_a_row(server: Server) -> None:
    ticket = server.hub.ticket(["topic", "other"])
    with server.database.writing() as session:
        announce(session, ["topic"], utcnow())
        announce(session, ["topic"], utcnow())
        assert server.hub.ticket(["topic", "other"]) == ticket
    assert server.hub.ticket(["topic", "other"]).counters == {"topic": 1, "other": 0}
    with server.database.reading() as session:
        assert [event.topics for event in session.scalars(select(Event))] == [["topic"]]


def test_many_writers_take_turns(server: Server) -> None:
    def write(number: int) -> None:
        for step in range(10):
            with server.database.writing() as session:
                session.add(Organization(name=f"{number}.{step}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.database.reading() as session:
        assert len(session.scalars(select(Organization)).all()) == 83


def test_foreign_keys_hold(server: Server) -> None:
    with server.database.writing() as session, pytest.raises(IntegrityError):
        session.execute(text("INSERT INTO study (name, collaboration_id) VALUES ('x', 99)"))


def test_old_events_are_forgotten(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    federation.clock.turn(days=2)
    federation.server.sweep()
    with federation.server.database.reading() as session:
        assert session.scalars(select(Event).where(Event.at < federation.clock.now)).all() == []


def test_the_policy_is_written_once(server: Server) -> None:
    def look() -> tuple[list[tuple[int, str]], list[tuple[int, int]]]:
        with server.database.writing() as session:
            write_policy(session)
            rules = [(rule.id, rule.name) for rule in session.scalars(select(Rule))]
            return rules, [(role.id, len(role.rules)) for role in session.scalars(select(Role))]

    first = look()
    assert look() == first
    assert len(first[0]) == 89


@pytest.mark.parametrize("url", ["nonsense", "nosuchdb://x", "sqlite:////nonexistent/folder/x.sqlite"])
def test_a_database_that_can_not_be_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="atabase"):
        open_server(make_settings(tmp_path, database=url))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "skerry.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(ConfigurationError, match="can't be used"):
        open_server(make_settings(tmp_path))


def test_a_database_that_someone_else_writes_to_is_waited_for(tmp_path: Path) -> None:
    server = open_server(make_settings(tmp_path))
    other = sqlite3.connect(server.settings.state / "skerry.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()
    with server.database.writing() as session:
        session.add(Organization(name="patient"))
    timer.join()
    other.close()
    server.database.close()


# --- payloads -------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    return PayloadStore.of_files(tmp_path / "payloads")


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, 3_000_000])
def test_what_is_kept_is_read_again(store: PayloadStore, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    payload = store.keep((content[i : i + 1000] for i in range(0, size, 1000)), 1 << 30)
    assert payload.size == size
    assert store.load(payload) == content
    files = list((tmp_path / "payloads").iterdir())
    assert len(files) == (size > INLINE_LIMIT)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    store.forget(payload)
    assert list((tmp_path / "payloads").iterdir()) == []


def test_too_large(store: PayloadStore, tmp_path: Path) -> None:
    for limit in (10, 100_000):
        with pytest.raises(TooLarge):
            store.keep(iter([bytes(limit), b"x"]), limit)
    assert list((tmp_path / "payloads").iterdir()) == []


def test_a_stream_that_breaks_off_leaves_no_file(store: PayloadStore, tmp_path: Path) -> None:
    def stream() -> Iterator[bytes]:
        yield bytes(200_000)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.keep(stream(), 1 << 30)
    assert list((tmp_path / "payloads").iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(federation: Federation, researcher: Api, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = refused_for_room(federation, researcher, 200_000)
    assert list(federation.server.settings.payload_folder.iterdir()) == []
    assert researcher.get("task")["data"] == []
    assert "its administrator must make room" in said
    federation.make_task(researcher, organizations=[{"id": 2, "input": plain("x" * 200_000)}])


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_a_full_database_is_said(federation: Federation, researcher: Api) -> None:
    engine = federation.server.database.engine
    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    assert "its administrator must make room" in refused_for_room(federation, researcher, 20_000)


def refused_for_room(federation: Federation, researcher: Api, size: int) -> str:
    body = federation.task_body(organizations=[{"id": 2, "input": plain("x" * size)}])
    answer = researcher.ask("POST", "task", body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    return answer.json["msg"]


def test_what_no_row_names_is_swept_away(server: Server) -> None:
    kept = server.payloads.keep([bytes(100_000)], 1 << 30)
    left = server.payloads.keep([bytes(100_000)], 1 << 30)
    with server.database.writing() as session:
        session.add(kept)
    for payload in (kept, left):
        os.utime(server.settings.payload_folder / str(payload.file), (time.time() - 7200,) * 2)
    fresh = server.payloads.keep([bytes(100_000)], 1 << 30)
    server.payloads.sweep(server.database.reading)
    assert {path.name for path in server.settings.payload_folder.iterdir()} == {kept.file, fresh.file}


def test_others_write_while_what_is_left_is_looked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket may hold a million: another process that starts stops nobody."""
    written: list[bool] = []

    def write() -> None:
        with server.database.writing() as session:
            session.add(Organization(name="meanwhile"))

    def unchanged_since(_moment: float) -> Iterator[str]:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(20)
        written.append(not thread.is_alive())
        yield from ()

    monkeypatch.setattr(server.payloads.objects, "unchanged_since", unchanged_since)
    server.begin()
    assert written == [True]


def test_a_large_input_is_fetched_by_itself(federation: Federation, researcher: Api) -> None:
    big = plain("x" * 200_000)
    federation.make_task(researcher, organizations=[{"id": 2, "input": big}])
    order = federation.claim()
    assert order["input"] is None
    assert order["input_size"] == 200_002
    for caller in (federation.nodes[2], federation.as_run(order), researcher):
        answer = caller.ask("GET", f"skerry/run/{order['run']}/input")
        assert (len(answer.data), answer.content_type) == (200_002, "application/octet-stream")
    assert researcher.get(f"run/{order['run']}")["input"] == big


def test_ids_are_not_used_twice(federation: Federation) -> None:
    """CVE-2023-41881: what a deleted thing left behind is inherited by the next."""
    first = federation.root.post("organization", {"name": "first"})["id"]
    with federation.server.database.writing() as session:
        session.delete(session.get_one(Organization, first))
    assert federation.root.post("organization", {"name": "second"})["id"] > first


def test_a_new_database_counts_from_one(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}", Hub(), Trail("server-1", utcnow), utcnow)
    database.migrate()
    with database.writing() as session:
        session.add_all([Organization(name="one"), Payload(size=0, inline=b"")])
    with database.reading() as session:
        assert session.scalars(select(Organization.id)).all() == [1]
        assert session.scalars(select(Run)).all() == []
    database.close()


def test_what_a_node_holds_is_found_by_an_index_alone() -> None:
    """SQLite would else look through all runs that the node ever had, at each of its calls."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    found = work._IDS_HELD.params(node=1).compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {found}").all()
    assert [row.detail for row in plan] == [
        "SEARCH run USING COVERING INDEX ix_run_node_id_state (node_id=? AND state=?)"
    ]
