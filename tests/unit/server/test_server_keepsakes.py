"""Words that are made once and kept, whoever comes first."""

from __future__ import annotations

import multiprocessing
import stat
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from skerry.errors import ConfigurationError
from skerry_server.keepsakes import kept

PROCESSES = 4
ROUNDS = 100


def test_made_once_and_only_for_us(tmp_path: Path) -> None:
    path = tmp_path / "word"
    assert kept(path, lambda: "first") == kept(path, lambda: "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_who_comes_second_while_the_first_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "word"

    def late() -> str:
        kept(path, lambda: "first")
        return "second"

    assert kept(path, late) == "first"
    assert list(tmp_path.iterdir()) == [path]


def come(number: int, folder: Path, together: Barrier, words: Queue[list[str]]) -> None:
    found = []
    for turn in range(ROUNDS):
        together.wait()
        found.append(kept(folder / str(turn), lambda: f"process {number}"))
    words.put(found)


def test_processes_that_start_together_know_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together, words = context.Barrier(PROCESSES), context.Queue()
    started = [context.Process(target=come, args=(number, tmp_path, together, words)) for number in range(PROCESSES)]
    for one in started:
        one.start()
    known = [words.get(timeout=60) for _ in started]
    for one in started:
        one.join()
    assert all(found == known[0] for found in known)
    assert len(known[0]) == ROUNDS


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "isn't text")])
def test_a_broken_one_is_told_with_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "word"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{said}: remove it"):
        kept(path, lambda: "another")
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read or made: No such file"):
        kept(tmp_path / "nowhere" / "word", lambda: "word")
