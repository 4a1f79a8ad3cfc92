from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from skerry.dev import processes

pytestmark = pytest.mark.unit
PYTHON = sys.executable

SAYS_GOODBYE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("bye")))
print("up", flush=True)
time.sleep(600)
"""
HAS_A_CHILD = """
import os, time
child = os.fork()
print("parent" if child else "child", os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def run(program: str, log: str = "log"):
        process = processes.start([PYTHON, "-c", program], tmp_path / log, {"PATH": os.environ["PATH"]})
        started.append(process)
        return process

    yield run
    processes.stop(started)


def wait_for(path, text) -> None:
    end = time.monotonic() + 30
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_its_words_are_in_the_log_that_only_we_read(start, tmp_path) -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr)")
    assert processes.wait_for_end([process], 30)
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_it_hears_its_words_and_its_exit_code_is_told(tmp_path) -> None:
    program = [PYTHON, "-c", "import sys; print(input()); sys.exit(7 if sys.stdin.read() == '' else 1)"]
    process = processes.start(program, tmp_path / "log", {}, "secret\n")
    assert processes.finish(process) == 7
    assert (tmp_path / "log").read_text() == "secret\n"


def test_what_a_start_left_is_found_by_its_program_and_folder(tmp_path) -> None:
    """Not those of other folders, nor other programs that look into this one, nor what a part has forked."""
    program, environment = (PYTHON, "-c", "import os, time; os.fork(); time.sleep(600)"), {"PATH": os.environ["PATH"]}
    own, other = tmp_path / "own", tmp_path / "own-too"
    log = tmp_path / "log"
    wanted = processes.start((*program, "--config", str(own / "node.yaml")), log, environment)
    others = [
        processes.start((*program, "--config", str(other / "node.yaml")), log, environment),
        processes.start((PYTHON, "-c", "import time; time.sleep(601)", str(own)), log, environment),
    ]
    try:
        assert processes.find(program, own) == [wanted]
    finally:
        processes.stop([wanted, *others])
    assert processes.find(program, own) == []


def test_an_undisturbed_block_ends_before_a_signal_does_anything(monkeypatch) -> None:
    done = []
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("signal"))
    try:
        with processes.undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["block", "signal"]


def test_it_leads_a_session_of_its_own(start) -> None:
    process = start("import time; time.sleep(600)")
    assert os.getsid(process.pid) == process.pid


def test_waiting_ends_when_one_ends(start) -> None:
    sleeper, short = start("import time; time.sleep(600)"), start("input")
    assert processes.wait_for_end([sleeper, short], 30)
    assert sleeper.alive()
    assert not short.alive()


def test_waiting_ends_when_the_time_is_up(start) -> None:
    assert not processes.wait_for_end([start("import time; time.sleep(600)")], 0.01)


def test_stop_asks_first(start, tmp_path) -> None:
    process = start(SAYS_GOODBYE)
    wait_for(tmp_path / "log", "up")
    processes.stop([process])
    assert not process.alive()
    assert "bye" in (tmp_path / "log").read_text()


def test_stop_kills_what_does_not_listen(start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    process = start("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)")
    wait_for(tmp_path / "log", "up")
    processes.stop([process])
    assert not process.alive()


def test_stop_takes_the_orphans_of_a_killed_leader(start, tmp_path) -> None:
    process = start(HAS_A_CHILD)
    wait_for(tmp_path / "log", "child")
    orphan = int(next(line for line in (tmp_path / "log").read_text().splitlines() if "child" in line).split()[1])
    os.kill(process.pid, signal.SIGKILL)
    assert processes.wait_for_end([process], 30)
    processes.stop([process])
    end = time.monotonic() + 30
    while processes._stat(orphan) and processes._stat(orphan)[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_later_process_with_the_same_pid_is_left_alone() -> None:
    with subprocess.Popen([PYTHON, "-c", "import time; time.sleep(600)"], start_new_session=True) as other:
        now = int(processes._stat(other.pid)[19])
        stranger = replace(processes.Process(other.pid, now), started=now - 1)
        assert not stranger.alive()
        processes.stop([stranger])
        assert other.poll() is None
        other.kill()
