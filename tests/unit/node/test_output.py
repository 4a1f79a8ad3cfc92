from __future__ import annotations

import json
import os

import pytest

from skerry_node.output import BadOutput, is_whole, open_output

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "task").mkdir()
    return tmp_path / "task"


def read(folder, *, limit: int = 100, owner: int | None = None) -> bytes:
    output = open_output(folder, owner=os.geteuid() if owner is None else owner, limit=limit)
    with os.fdopen(output.descriptor, "rb") as file:
        content = file.read()
    assert len(content) == output.size
    return content


def test_a_result(folder) -> None:
    (folder / "output").write_bytes(b"{}")
    assert read(folder) == b"{}"


def test_an_empty_one(folder) -> None:
    (folder / "output").touch()
    with pytest.raises(BadOutput, match="without writing a result"):
        read(folder)


def test_none_at_all(folder) -> None:
    with pytest.raises(BadOutput):
        read(folder)


def test_a_link_to_a_file_of_the_host(folder, tmp_path) -> None:
    (tmp_path / "secret").write_text("the host's")
    (folder / "output").symlink_to(tmp_path / "secret")
    with pytest.raises(BadOutput, match="something else than a file"):
        read(folder)


def test_a_hard_link(folder, tmp_path) -> None:
    (tmp_path / "secret").write_text("the host's")
    (folder / "output").hardlink_to(tmp_path / "secret")
    with pytest.raises(BadOutput, match="its own file"):
        read(folder)


def test_a_folder_that_became_a_link(folder, tmp_path) -> None:
    (folder / "output").write_text("the host's")
    (tmp_path / "other").symlink_to(folder)
    with pytest.raises(BadOutput):
        read(tmp_path / "other")


def test_a_pipe_does_not_hang(folder) -> None:
    os.mkfifo(folder / "output")
    with pytest.raises(BadOutput):
        read(folder)


def test_a_folder(folder) -> None:
    (folder / "output").mkdir()
    with pytest.raises(BadOutput):
        read(folder)


def test_a_sparse_giant(folder) -> None:
    with (folder / "output").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadOutput, match="this node allows 100"):
        read(folder)


def test_a_file_of_another_user(folder) -> None:
    (folder / "output").write_text("{}")
    with pytest.raises(BadOutput, match="its own file"):
        read(folder, owner=os.geteuid() + 1)


WHOLE = [{}, [], {"a": [1, "]", "\\", '"', {"b": "}"}]}, "text", [[[]]], "x" * 600_000, ["\\" * 300_001, 'é"']]


def holds_whole(folder, content: bytes) -> bool:
    (folder / "output").write_bytes(content)
    with (folder / "output").open("rb") as file:
        return is_whole(file.fileno())


@pytest.mark.parametrize("value", WHOLE, ids=lambda value: json.dumps(value)[:20])
def test_what_is_whole_is_so_to_its_last_byte(folder, value) -> None:
    raw = json.dumps(value).encode()
    cuts = range(len(raw)) if len(raw) < 1000 else (1, 262_143, 262_144, 262_145, len(raw) - 2, len(raw) - 1)
    assert holds_whole(folder, raw)
    assert holds_whole(folder, b"\n " + raw + b" \n")
    assert not any(holds_whole(folder, raw[:cut]) for cut in cuts if cut < len(raw))
    assert not holds_whole(folder, raw + b"1")


@pytest.mark.parametrize("content", [b"", b" ", b"12", b"true", b"PAR1", b"]", b"{}{}", b"[]]", b"x[]"])
def test_what_can_not_be_told_is_not_whole(folder, content) -> None:
    assert not holds_whole(folder, content)
