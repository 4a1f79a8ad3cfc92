from __future__ import annotations

import stat
import threading

import pytest

from skerry.dev import leftovers
from skerry.dev.folder import Folder, State, write_private
from skerry.dev.plan import Database, Plan
from skerry.dev.processes import Process
from skerry.errors import ConfigurationError

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "home" / "dev")
    folder.make()
    return folder


def test_a_state_survives_being_written_down(folder) -> None:
    plan = Plan("dev", 2, (Database("default", ("/a.csv", "/b.csv")),))
    state = State(plan, 5000, {"server": Process(12, 34)}, {"server_pid": 12})
    folder.store(state)
    assert folder.load() == state
    assert stat.S_IMODE(folder.state_file.stat().st_mode) == 0o600


def test_nothing_stored_is_nothing_loaded(folder) -> None:
    assert folder.load() is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"plan": {}}'])
def test_a_damaged_state_is_named(folder, content) -> None:
    folder.state_file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"state\.json is damaged"):
        folder.load()


def test_one_command_at_a_time(folder) -> None:
    order = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with folder.locked():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with folder.locked():
        inside.set()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(folder.path.parent.iterdir()) == [folder.path]


def test_a_place_that_can_not_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="XDG_STATE_HOME"), Folder(tmp_path / "file" / "dev").locked():
        pass


def test_a_private_file_replaces_an_open_one(tmp_path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_mounts_are_found_by_their_folder_deepest_first(tmp_path, monkeypatch) -> None:
    lines = [
        f"21 1 0:5 / {point} rw - tmpfs tmpfs rw"
        for point in ("/", "/x/dev", "/x/dev/run/deep", "/x/development", r"/x/dev/with\040blank", "/y/x/dev")
    ]
    table = tmp_path / "mountinfo"
    table.write_text("\n".join(lines))
    monkeypatch.setattr(leftovers, "MOUNTS", table)
    assert leftovers.mounts_below(Folder(tmp_path).path) == []
    found = leftovers.mounts_below(leftovers.Path("/x/dev"))
    assert found == ["/x/dev/with blank", "/x/dev/run/deep", "/x/dev"]


def test_removing_a_folder_twice_is_no_error(folder) -> None:
    leftovers.remove_folder(folder.path)
    leftovers.remove_folder(folder.path)
    assert not folder.path.exists()
