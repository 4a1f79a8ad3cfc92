"""The node's own folder: who it is across its starts, its lock, and what it shows to who looks from outside."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from pathlib import Path
from typing import IO

from skerry.errors import ConfigurationError
from skerry_node import trail as trails
from skerry_node.files import replace_file
from skerry_node.preflight import Report
from skerry_node.trail import Trail

log = logging.getLogger(__name__)

READY, SANDBOX = "ready", "sandbox"


class State:
    """The node's own folder: its installation's id and its lock. Raises ConfigurationError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._said_ready = False
        try:
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._lock = _lock(folder / "lock")
            self.installation = _read_installation(folder / "installation")
        except OSError as error:
            raise ConfigurationError(f"state_folder: {folder} can't be used ({error.strerror}).") from error
        self.trail = Trail(folder / trails.FOLDER, trails.now)

    def say_ready(self) -> None:
        """Does not raise: on a full disk it is said by the next call. Once it was said, nothing happens."""
        if self._said_ready:
            return
        try:
            (self.folder / READY).write_text(f"{os.getpid()}\n")
            self._said_ready = True
        except OSError as error:
            log.warning("That the node is ready can't be written down: %s: make room on the disk", error)

    def say_sandbox(self, report: Report) -> None:
        """Whether the sandbox held when it was last tried, for who looks from outside."""
        lines = [str(os.getpid()), *(" ".join(str(problem).split()) for problem in report.problems)]
        replace_file(self.folder / SANDBOX, "\n".join(lines))

    def close(self) -> None:
        for name in (READY, SANDBOX):
            (self.folder / name).unlink(missing_ok=True)
        self.trail.close()
        self._lock.close()


def is_locked(folder: Path) -> bool:
    """Whether a node runs on this folder."""
    path = folder / "lock"
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigurationError(
            f"state_folder: another node uses {path.parent}; each needs one of its own."
        ) from error
    return file


def _read_installation(path: Path) -> str:
    """A random id, made once: it tells this node's containers from those of others on the machine."""
    if not path.exists():
        draft = path.with_name("installation.new")
        draft.write_text(f"{secrets.token_hex(6)}\n")
        draft.rename(path)
    return path.read_text().strip()
