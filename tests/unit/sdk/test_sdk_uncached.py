"""Large files are written and read past the page cache, byte for byte, also where a file system can't do so."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry import uncached

BUFFER = 1 << 20
SIZES = st.sampled_from([0, 1, 100, 4095, 4096, 5000, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 7])


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def content(descriptor: int) -> bytes:
    with Path(f"/proc/self/fd/{descriptor}").open("rb") as again:
        return again.read()


def fail_behind_the_first_buffer(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    act = getattr(os, call)

    def fail(descriptor: int, pieces: list[memoryview], at: int) -> int:
        if at >= BUFFER:
            raise OSError(code, os.strerror(code))
        return int(act(descriptor, [pieces[0][:4096]], at))  # and never more than a part at once

    monkeypatch.setattr(os, call, fail)


def write(descriptor: int, start: int, *pieces: bytes) -> None:
    os.ftruncate(descriptor, start)
    with uncached.Writer(descriptor, start) as writer:
        for piece in pieces:
            writer.write(piece)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uploads=st.lists(st.tuples(st.integers(0, 9000), st.lists(SIZES, max_size=4)), min_size=1, max_size=3), at=st.data()
)
def test_what_comes_in_pieces_and_after_breaks_is_what_is_read(file: int, uploads, at) -> None:
    """Each upload goes on some bytes before the end of what came until then."""
    whole = b""
    for back, sizes in uploads:
        whole = whole[: max(len(whole) - back, 0)]
        pieces = [os.urandom(size) for size in sizes]
        write(file, len(whole), *pieces)
        whole += b"".join(pieces)
    assert content(file) == whole
    start = at.draw(st.integers(0, len(whole)))
    end = at.draw(st.integers(start, len(whole)))
    assert b"".join(uncached.read(file, start, end)) == whole[start:end]
    assert b"".join(uncached.read(file, 0, len(whole))) == whole


def test_only_large_files_go_past_the_cache(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def watched(name: str) -> Any:
        act = getattr(os, name)

        def watching(descriptor: int, *rest: Any) -> int:
            seen.append((name, is_direct(descriptor)))
            return act(descriptor, *rest)

        return watching

    for name in ("pwritev", "preadv"):
        monkeypatch.setattr(os, name, watched(name))
    write(file, 0, bytes(BUFFER - 1))
    assert [*uncached.read(file, 0, 100)] == [bytes(100)]
    assert seen == [("pwritev", False), ("preadv", False)]
    seen.clear()
    write(file, 0, bytes(2 * BUFFER + 1))
    assert sum(map(len, uncached.read(file, 0, 2 * BUFFER + 1))) == 2 * BUFFER + 1
    assert seen[:3] == [("pwritev", True), ("pwritev", True), ("pwritev", False)]
    assert {("preadv", True)} == {*seen[3:]}


def test_the_start_of_a_file_goes_through_the_cache_where_it_should(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    act, seen = os.pwritev, []

    def watching(descriptor: int, pieces: list[memoryview], at: int) -> int:
        seen.append((at, is_direct(descriptor)))
        return act(descriptor, pieces, at)

    monkeypatch.setattr(os, "pwritev", watching)
    whole = os.urandom(3 * BUFFER + 1)
    with uncached.Writer(file, 0, cached=2 * BUFFER) as writer:
        writer.write(whole)
    assert seen == [(0, False), (BUFFER, False), (2 * BUFFER, True), (3 * BUFFER, False)]
    assert content(file) == whole
    assert not is_direct(file)


def refusing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As a file system that takes the flag, and then nothing with it."""
    act = getattr(os, name)

    def refuse(descriptor: int, *rest: Any) -> int:
        if is_direct(descriptor):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return act(descriptor, *rest)

    monkeypatch.setattr(os, name, refuse)


def test_a_file_system_that_needs_its_cache_has_it(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "pwritev")
    refusing(monkeypatch, "preadv")
    whole = os.urandom(3 * BUFFER + 5)
    write(file, 0, whole)
    assert content(file) == whole
    assert b"".join(uncached.read(file, 3, 3 * BUFFER)) == whole[3 : 3 * BUFFER]


def test_one_that_does_not_take_the_flag_has_it_too(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    act = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return act(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    whole = os.urandom(2 * BUFFER + 5)
    write(file, 0, whole)
    assert content(file) == whole
    assert b"".join(uncached.read(file, 0, len(whole))) == whole


def test_what_came_before_a_break_is_kept(file: int) -> None:
    came = os.urandom(BUFFER + 77)

    def upload() -> None:
        with uncached.Writer(file, 0) as writer:
            writer.write(came)
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        upload()
    assert content(file) == came


def test_a_full_disk_is_said_and_keeps_what_it_has(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_behind_the_first_buffer(monkeypatch, "pwritev", errno.ENOSPC)
    whole = os.urandom(3 * BUFFER)
    with pytest.raises(OSError, match="No space"), uncached.Writer(file, 0) as writer:
        writer.write(whole)
    assert content(file) == whole[:BUFFER]
    with pytest.raises(OSError, match="No space"):
        write(file, 0, bytes(BUFFER), b"the rest")


def test_where_no_thread_can_be_had_the_caller_writes_and_reads(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    whole = os.urandom(4 * BUFFER + 9)
    write(file, 0, whole)
    assert content(file) == whole
    assert b"".join(uncached.read(file, 5, len(whole))) == whole[5:]


def test_the_next_piece_is_read_while_one_is_in_use(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, 0, bytes(3 * BUFFER))
    act, places, second = os.preadv, list[int](), threading.Event()

    def note(descriptor: int, pieces: list[memoryview], at: int) -> int:
        places.append(at)
        if at:
            second.set()
        return act(descriptor, pieces, at)

    monkeypatch.setattr(os, "preadv", note)
    pieces = uncached.read(file, 0, 3 * BUFFER)
    next(pieces)
    assert second.wait(10)
    pieces.close()  # type: ignore[attr-defined] - it is a generator
    assert places == [0, BUFFER]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_slow_readers_do_not_take_all_threads(file: int) -> None:
    whole = os.urandom(2 * BUFFER)
    write(file, 0, whole)
    readers = [uncached.read(file, 0, len(whole)) for _ in range(20)]
    assert [next(reader) for reader in readers] == [whole[:BUFFER]] * 20
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("reader")]) == 16
    assert [b"".join(reader) for reader in readers] == [whole[BUFFER:]] * 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_a_disk_that_fails_is_told_after_what_came_before(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.urandom(3 * BUFFER)
    write(file, 0, whole)
    fail_behind_the_first_buffer(monkeypatch, "preadv", errno.EIO)
    pieces = uncached.read(file, 0, len(whole))
    assert next(pieces) == whole[:BUFFER]
    with pytest.raises(OSError, match="Input/output"):
        next(pieces)


def test_a_thread_that_outlives_the_main_one_writes(tmp_path: Path) -> None:
    script = f"""
import os, threading, time
from skerry.uncached import Writer

def late():
    threading.main_thread().join()
    time.sleep(0.2)
    descriptor = os.open({str(tmp_path / "file")!r}, os.O_RDWR | os.O_CREAT)
    with Writer(descriptor, 0) as writer:
        writer.write(bytes(3 * {BUFFER} + 1))

threading.Thread(target=late).start()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "file").stat().st_size == 3 * BUFFER + 1


def test_nothing_is_written_behind_a_hole(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room again at once, but what could not be written is gone."""
    act, refused = os.pwritev, []

    def full_once(descriptor: int, pieces: list[memoryview], at: int) -> int:
        if at == BUFFER and not refused:
            refused.append(at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return act(descriptor, pieces, at)

    monkeypatch.setattr(os, "pwritev", full_once)
    whole = os.urandom(5 * BUFFER + 3)
    with pytest.raises(OSError, match="No space"):
        write(file, 0, whole[: 2 * BUFFER + 1])
    refused.clear()
    with pytest.raises(OSError, match="No space"):
        write(file, 0, whole)
    assert content(file) == whole[:BUFFER]


def test_a_file_that_ends_too_soon_is_read_up_to_there(file: int) -> None:
    write(file, 0, bytes(100))
    assert b"".join(uncached.read(file, 0, 4 * BUFFER)) == bytes(100)
