"""The sized areas of runs, on the machine's own file systems."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skerry_node import areas

pytestmark = pytest.mark.integration
SIZE = 16 << 20


@contextmanager
def on_disk(area: Path) -> Iterator[None]:
    areas.make(area, SIZE, mode=0o700, user=None, group=None, on_disk=True)
    try:
        yield
    finally:
        areas.remove(area)


def test_a_file_that_a_killed_node_left_is_in_nobodys_way(tmp_path: Path) -> None:
    area, left = tmp_path / "7.1", tmp_path / "7.1.ext4"
    left.write_bytes(b"half made")
    with on_disk(area):
        assert area.is_mount()
        assert not left.exists()
        assert list(area.iterdir()) == []
    assert not area.exists()


def test_what_lies_in_an_area_is_not_in_memory_twice() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, on_disk(area := Path(folder) / "7.1"):
        device = area.stat().st_dev
        loop = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        assert (loop / "loop" / "dio").read_text() == "1\n"


def test_an_area_on_a_file_system_that_is_nothing_but_memory() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, on_disk(area := Path(folder) / "7.1"):
        whole = os.urandom(SIZE // 2)
        (area / "file").write_bytes(whole)
        os.sync()
        assert (area / "file").read_bytes() == whole
