"""What a user sees on a terminal while runs are active, of native runs whose logs the server can't read."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, PATIENCE, SKERRY, skerry, start
from walks import contents

pytestmark = pytest.mark.acceptance
IMAGE = "skerry-tests/probe-live"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(place.stat().st_mode | 0o711)  # as root, each run is a user of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        built = skerry("algorithm", "build", str(ALGORITHMS / "probe"), "--tag", IMAGE, "--launcher", "process")
        assert built.returncode == 0, built.stderr
        with start("--nodes", "1", "--launcher", "process") as federation:
            yield federation


@pytest.fixture
def task(federation):
    return federation.client().task.create(
        organizations=federation.organization_ids,
        name="tells",
        image=IMAGE,
        collaboration=federation.collaboration_id,
        input_={"method": "tells", "kwargs": {"message": "half \x1b[2Jway", "seconds": 600}},
    )


def test_a_terminal_shows_the_log_and_ctrl_c_says_what_goes_on(federation, task, tmp_path) -> None:
    connection = tmp_path / "federation.json"
    connection.write_text(json.dumps(federation.facts))
    terminal = Terminal("task", "wait", str(task["id"]), "--connection", str(connection))
    organization = federation.organization_ids[0]
    try:
        terminal.read_until(f"organization {organization} | info > half \N{REPLACEMENT CHARACTER}[2Jway")
        terminal.interrupt()
        terminal.read_until(f"Stopped waiting; task {task['id']} goes on.")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen
    finally:
        terminal.close()
    client = federation.client()
    [run] = client.run.from_task(task["id"])["data"]
    assert (run["status"], run["log"]) == ("active", "info > half \x1b[2Jway\n")
    [sealed] = client.run.all_of(task["id"])
    assert "half" not in sealed["log"]
    client.task.kill(task["id"])
    federation.wait_for_status(task["id"], "killed by user")
    assert mentions(federation.server_folder, b"[2Jway") == []


def mentions(folder: Path, needle: bytes) -> list[Path]:
    return [path for path, content in contents(folder) if needle in content]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._leader, follower = pty.openpty()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        try:
            self._process = subprocess.Popen(
                [str(SKERRY), *arguments],
                stdin=follower,
                stdout=follower,
                stderr=follower,
                start_new_session=True,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            )
        finally:
            signal.signal(signal.SIGINT, before)
        os.close(follower)
        self._read = b""

    @property
    def seen(self) -> str:
        return self._read.decode("utf-8", "replace")

    def read_until(self, words: str) -> None:
        end = time.monotonic() + PATIENCE
        while words not in self.seen:
            ready, _, _ = select.select([self._leader], [], [], max(0.0, end - time.monotonic()))
            assert ready, self.seen
            try:
                self._read += os.read(self._leader, 65536)
            except OSError as error:  # how a terminal without a process ends
                raise AssertionError(self.seen) from error

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self._process.wait(timeout=PATIENCE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._leader)
