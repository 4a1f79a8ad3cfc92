"""The sized areas of runs, on the machine's own file systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry_node import areas

pytestmark = pytest.mark.integration
SIZE = 16 << 20


def test_a_file_that_a_killed_node_left_is_in_nobodys_way(tmp_path: Path) -> None:
    area, left = tmp_path / "7.1", tmp_path / "7.1.ext4"
    left.write_bytes(b"half made")
    areas.make(area, SIZE, mode=0o700, user=None, group=None, on_disk=True)
    try:
        assert area.is_mount()
        assert not left.exists()
        assert list(area.iterdir()) == []
    finally:
        areas.remove(area)
    assert not area.exists()
