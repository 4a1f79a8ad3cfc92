"""Who writes to SQLite queues, threads and processes alike; and its log stays small."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from sqlalchemy import text

from skerry.errors import ConfigurationError
from skerry_server import sqlite
from skerry_server.database import Database
from skerry_server.errors import Busy
from skerry_server.events import Hub
from skerry_server.models import utcnow
from skerry_server.trail import Trail

PATIENCE = 30.0
NOBODY = 65534


def opened(folder: Path, name: str = "file.sqlite") -> Database:
    made = Database(f"sqlite:///{folder / name}", Hub(), Trail("writer", utcnow), utcnow)
    made.migrate()
    return made


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Database]]:
    """As of two processes: each has opened the file by itself."""
    made = [opened(tmp_path) for _ in "ab"]
    yield made
    for one in made:
        one.close()


def locked(folder: Path) -> bool:
    """By the kernel's own list, where nobody who waits is."""
    inode = str((folder / "file.sqlite-turn").stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any("->" not in line and "FLOCK" in line and line[-3].endswith(f":{inode}") for line in lines)


def until(said: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


def write(database: Database, done: list[float] | None = None) -> None:
    with database.writing():
        pass
    if done is not None:
        done.append(time.monotonic())


def test_who_writes_has_the_turn(two: list[Database], tmp_path: Path) -> None:
    with two[0].writing():
        assert locked(tmp_path)
    assert not locked(tmp_path)
    with pytest.raises(KeyError), two[0].writing():
        raise KeyError
    assert not locked(tmp_path)


@pytest.mark.parametrize("number", [0, 1])
def test_the_next_one_waits_until_the_first_has_written(two: list[Database], number: int) -> None:
    """Whether it is of the same process or of the other."""
    done: list[float] = []
    with two[0]._turn:
        thread = threading.Thread(target=write, args=[two[number], done])
        thread.start()
        thread.join(0.3)
        assert not done
        left = time.monotonic()
    thread.join(PATIENCE)
    assert done[0] >= left


def test_who_waits_in_vain_is_told_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, two: list[Database], tmp_path: Path
) -> None:
    with two[0]._turn:
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
        for database in (two[1], two[1], two[0]):
            with pytest.raises(Busy, match="try again"):
                write(database)
        monkeypatch.undo()
    until(lambda: not locked(tmp_path))
    for database in two:
        write(database)


def test_who_comes_again_gets_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, two: list[Database]) -> None:
    done: list[float] = []
    with two[0]._turn:
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
        with pytest.raises(Busy):
            write(two[1])
        monkeypatch.undo()
        thread = threading.Thread(target=write, args=[two[1], done])
        thread.start()
        thread.join(0.3)
        assert not done
    thread.join(PATIENCE)
    assert done


def hold(folder: Path, held: Event) -> None:
    with opened(folder)._turn:
        held.set()
        time.sleep(10 * PATIENCE)


def test_a_killed_holder_frees_the_turn(two: list[Database], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold, args=[tmp_path, held])
    holder.start()
    assert held.wait(PATIENCE)
    done: list[float] = []
    thread = threading.Thread(target=write, args=[two[0], done])
    thread.start()
    thread.join(0.3)
    assert not done
    holder.kill()
    holder.join()
    thread.join(PATIENCE)
    assert done


def test_the_turns_are_all_had(two: list[Database]) -> None:
    def go_on(database: Database) -> None:
        for _ in range(25):
            with database.writing() as session:
                session.execute(text("UPDATE counted SET n = n + 1"))

    with two[0].writing() as session:
        session.execute(text("CREATE TABLE counted (n INTEGER)"))
        session.execute(text("INSERT INTO counted VALUES (0)"))
    threads = [threading.Thread(target=go_on, args=[two[number % 2]]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with two[0].reading() as session:
        assert session.scalar(text("SELECT n FROM counted")) == 6 * 25


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_is_the_owners(tmp_path: Path) -> None:
    """Who keeps the database can write to it after a command of the administrator's."""
    database = opened(tmp_path)
    os.chown(tmp_path / "file.sqlite", NOBODY, NOBODY)
    (tmp_path / "file.sqlite").chmod(0o640)
    before = os.umask(0o077)
    try:
        write(database)
    finally:
        os.umask(before)
    database.close()
    found = (tmp_path / "file.sqlite-turn").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, NOBODY, 0o640)


def test_no_link_is_followed(tmp_path: Path) -> None:
    database, aim = opened(tmp_path), tmp_path / "aim"
    (tmp_path / "file.sqlite-turn").symlink_to(aim)
    for _ in range(2):  # the second does not wait for the first
        with pytest.raises(ConfigurationError, match="can't be opened: Too many levels"):
            write(database)
    assert not aim.exists()
    database.close()


def test_it_lies_beside_the_file_however_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    opened(tmp_path).close()
    (tmp_path / "link" / "other.sqlite").symlink_to(tmp_path / "file.sqlite")
    for name in (f"sqlite:///{tmp_path}/link/other.sqlite", f"sqlite:///file:{tmp_path}/file.sqlite?uri=true"):
        database = Database(name, Hub(), Trail("writer", utcnow), utcnow)
        with database.writing():
            assert locked(tmp_path)
        database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_what_is_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        Database(url, Hub(), Trail("writer", utcnow), utcnow)


@contextmanager
def reading_on(database: Database) -> Iterator[None]:
    """There is always somebody who has begun to read and has not ended."""
    stop = threading.Event()

    def read(offset: float) -> None:
        time.sleep(offset)
        while not stop.is_set():
            with database.reading() as session:
                session.execute(text("SELECT count(*) FROM counted"))
                time.sleep(0.02)

    threads = [threading.Thread(target=read, args=[number / 100]) for number in range(3)]
    with ExitStack() as ended:
        for thread in threads:
            thread.start()
            ended.callback(thread.join)
        ended.callback(stop.set)
        yield


def test_the_log_stays_small_while_somebody_reads(monkeypatch: pytest.MonkeyPatch, two: list[Database]) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(sqlite, "_LARGE_LOG", 2 << 20)
    log = Path(f"{two[0].engine.url.database}-wal")
    with two[0].writing() as session:
        session.execute(text("CREATE TABLE counted (n BLOB)"))
    largest = 0
    with reading_on(two[1]):
        for _ in range(60):
            with two[0].writing() as session:
                session.execute(text("INSERT INTO counted VALUES (zeroblob(500000))"))
                session.execute(text("DELETE FROM counted"))
            largest = max(largest, log.stat().st_size)
            time.sleep(0.02)
    assert 2 << 20 < largest < 16 << 20


def test_a_log_that_is_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, two: list[Database]) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "_LARGE_LOG", 0)
    with two[1].reading() as reader:
        reader.execute(text("SELECT count(*) FROM event"))
        began = time.monotonic()
        with two[0].writing() as session:
            session.execute(text("CREATE TABLE counted (n INTEGER)"))
        assert time.monotonic() - began < sqlite.BUSY_SECONDS / 2
    write(two[0])
    assert Path(f"{two[0].engine.url.database}-wal").stat().st_size == 0
