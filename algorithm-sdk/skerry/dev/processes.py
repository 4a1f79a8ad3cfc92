"""The parts of a federation as processes of the operating system that outlive the command that started them."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 15.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Process:
    """One process; ``started`` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    started: int

    def alive(self) -> bool:
        """False also for a zombie that nobody has collected."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return self._state() not in {"", "Z", "X"}

    def _state(self) -> str:
        stat = _stat(self.pid)
        return stat[0] if stat and int(stat[19]) == self.started else ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def start(command: Sequence[str], log: Path, environment: Mapping[str, str], words: str = "") -> Process:
    """Starts a program in a session of its own, its output appended to ``log``. Raises OSError.

    ``words`` (at most 4096 bytes) are what it reads on its standard input.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    stdin, writer = os.pipe()
    try:
        os.write(writer, words.encode())
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(environment),
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    finally:
        os.close(stdin)
        os.close(writer)
    return Process(pid, int(_stat(pid)[19]))


def find(program: Sequence[str], folder: Path) -> list[Process]:
    """What ``start`` started of this program, by whichever interpreter, with a path in the folder.

    Anybody may call a process what they like: so it has to be this user's, of this container, and lead its session.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = _stat(int(entry.name))
            if not stat or stat[3] != entry.name or not _is_ours(entry):
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            own, given = words[1 : len(program)] == list(program[1:]), words[len(program) :]
            if own and any(Path(word).is_relative_to(folder) for word in given):
                found.append(Process(int(entry.name), int(stat[19])))
    return found


def _is_ours(entry: Path) -> bool:
    """Raises OSError for some that are not."""
    mounts, ours = (entry / "ns/mnt").stat(), Path("/proc/self/ns/mnt").stat()
    return entry.stat().st_uid == os.geteuid() and (mounts.st_dev, mounts.st_ino) == (ours.st_dev, ours.st_ino)


def finish(process: Process) -> int:
    """Waits for a child of this process that nobody else has waited for; its exit code, as in ``subprocess``."""
    return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block has ended: for what must not be done by half.

    By handlers, not by a mask: another thread would take the signal, and Python's handler runs in the main one anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = [(ending, signal.signal(ending, lambda number, _: came.append(number))) for ending in _ENDING]
    try:
        yield
    finally:
        for ending, handler in before:
            signal.signal(ending, handler)
    for number in came:
        signal.raise_signal(number)


def wait_for_end(processes: Iterable[Process], timeout: float) -> bool:
    """True as soon as one of the processes has ended; False when the time is up."""
    with ExitStack() as stack:
        poll = select.poll()
        for process in processes:
            if not process.alive():
                return True
            descriptor = os.pidfd_open(process.pid)
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


def stop(processes: Sequence[Process]) -> None:
    """Asks all to end, waits, and kills what is left of their sessions."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        if process.alive():
            wait_for_end([process], max(0.0, deadline - time.monotonic()))
    for process in processes:
        _kill_session(process)


def _signal(process: Process, number: int) -> None:
    if process.alive():
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _kill_session(process: Process) -> None:
    """The leader and its descendants that stayed in its session.

    The kernel does not give a pid away while it names a session, so members found under it are ours unless another
    process leads it.
    """
    stat = _stat(process.pid)
    if stat and int(stat[19]) != process.started:
        return
    for pid in _members(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if process.alive():
        wait_for_end([process], GRACE_SECONDS)


def _members(session: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (stat := _stat(pid)) and int(stat[3]) == session]
