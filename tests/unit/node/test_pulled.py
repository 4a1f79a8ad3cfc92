from __future__ import annotations

import errno

import pytest

from skerry_node.config import KeepImages
from skerry_node.pulled import Pulled, PulledImages, choose

pytestmark = pytest.mark.unit

DAY = 86400.0
NOW = 1000 * DAY
IMAGES = [
    Pulled(image=name, references=(f"team/{name}",), used=NOW - days * DAY)
    for name, days in [("a", 50), ("b", 20), ("c", 0)]
]
SIZES = {"a": 10 << 20, "b": 20 << 20, "c": 30 << 20}


def chosen(in_use=(), sizes=SIZES, **keep) -> list[str]:
    return [one.image for one in choose(IMAGES, sizes, in_use, KeepImages(**keep), NOW)]


def test_without_a_policy_all_are_kept() -> None:
    assert chosen() == []


CASES = [
    ({"days": 30}, ["a"]),
    ({"days": 10}, ["a", "b"]),
    ({"days": 0}, ["a", "b"]),  # c was asked for a moment ago: its container may not be made yet
    ({"size": 60 << 20}, []),
    ({"size": 50 << 20}, ["a"]),
    ({"size": 49 << 20}, ["a", "b"]),
    ({"size": 4096}, ["a", "b"]),
    ({"days": 30, "size": 30 << 20}, ["a", "b"]),
    ({"days": 10, "in_use": ["a"]}, ["b"]),
    ({"size": 50 << 20, "in_use": ["a"]}, ["b"]),
    ({"days": 10, "sizes": {"b": 1}}, ["b"]),
]


@pytest.mark.parametrize(("keep", "images"), CASES)
def test_the_least_recently_used_goes_first(keep, images) -> None:
    assert chosen(**keep) == images


def test_only_what_the_node_pulled_is_remembered(tmp_path) -> None:
    pulled = PulledImages(tmp_path)
    pulled.note_use("a", "team/a:1", 1.0, new=False)
    assert pulled.list() == ()
    pulled.note_use("a", "team/a:1", 1.0, new=True)
    pulled.note_use("a", "team/a:2", 2.0, new=False)
    [one] = PulledImages(tmp_path).list()
    assert (one.references, one.used) == (("team/a:1", "team/a:2"), 2.0)
    pulled.forget("a")
    assert pulled.list() == ()


def test_a_damaged_list_removes_nothing(tmp_path) -> None:
    (tmp_path / "images.json").write_text('[{"image": "a"}]')
    assert PulledImages(tmp_path).list() == ()


def test_a_full_disk_keeps_no_run_from_its_image(tmp_path, monkeypatch, caplog) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("skerry_node.pulled.replace_file", full)
    PulledImages(tmp_path).note_use("a", "team/a:1", 1.0, new=True)
    assert "make room on the disk" in caplog.text


def test_many_uses_in_a_row_are_written_once(tmp_path) -> None:
    pulled = PulledImages(tmp_path)
    pulled.note_use("a", "team/a", 1.0, new=True)
    pulled.note_use("a", "team/a", 50.0, new=False)
    assert pulled.list()[0].used == 1.0
    pulled.note_use("a", "team/a", 70.0, new=False)
    assert pulled.list()[0].used == 70.0
