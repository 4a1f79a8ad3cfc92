"""A federation of plain processes: for machines where no engine can run. Needs none, and no root."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, skerry, start

pytestmark = pytest.mark.acceptance
IMAGE = "skerry-tests/probe-process"


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(open_folder(tmp_path_factory)))
        built = skerry("algorithm", "build", str(ALGORITHMS / "probe"), "--tag", IMAGE, "--launcher", "process")
        assert built.returncode == 0, built.stderr
        yield IMAGE


def open_folder(factory) -> Path:
    """As root, each run is a user of its own, who must get through to the algorithm's code."""
    folder = factory.mktemp("images")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(place.stat().st_mode | 0o711)
    return folder


@pytest.fixture
def federation(image):
    with start("--nodes", "2", "--launcher", "process") as federation:
        yield federation


def create(federation, method, **kwargs):
    return federation.client().task.create(
        organizations=federation.organization_ids,
        name=method,
        image=IMAGE,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": kwargs},
    )


def test_a_task_runs_without_an_engine(federation) -> None:
    assert create(federation, "echo", value="there").wait(timeout=120).results() == ["there", "there"]


def test_it_says_loudly_what_is_not_separated(image) -> None:
    name = "loud"
    up = skerry("dev", "up", "--name", name, "--nodes", "1", "--launcher", "process", "--json")
    try:
        assert up.returncode == 0, up.stderr
        assert "WARNING" in up.stderr
        assert "for development only" in up.stderr
        assert "NOT SEPARATED" in up.stderr
    finally:
        assert skerry("dev", "down", "--name", name).returncode == 0


def test_a_killed_node_leaves_no_process_behind(federation) -> None:
    task = create(federation, "sleep", seconds=600)
    federation.wait_for_status(task["id"], "active")
    watching = minders(federation.folder)
    assert len(watching) == 2
    for pid in federation.node_pids:
        os.kill(pid, signal.SIGKILL)
    assert skerry("dev", "down", "--name", federation.name).returncode == 0
    end = time.monotonic() + 30
    while left := [pid for pid in watching if runs(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.02)


def minders(folder: Path) -> list[int]:
    return [int(path.read_text().split()[0]) for path in folder.glob("node-*/state/processes/*/minder")]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False
