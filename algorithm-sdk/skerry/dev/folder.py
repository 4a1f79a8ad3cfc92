"""Where a development federation keeps its things, and what it remembers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from skerry.dev.plan import Plan
from skerry.dev.processes import Process
from skerry.errors import ConfigurationError


@dataclass
class State:
    """What ``down`` must know. ``facts`` is what ``up --json`` prints; empty while the federation is not complete."""

    plan: Plan
    port: int
    processes: dict[str, Process] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one federation. A node's proxy is another user when root starts it, and must get through."""

    path: Path

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def server(self) -> Path:
        return self.path / "server"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def key(self, number: int) -> Path:
        return self.path / "keys" / f"organization-{number}.pem"

    def node(self, number: int) -> Path:
        return self.path / f"node-{number}"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def make(self) -> None:
        """Raises ConfigurationError where this user may not write."""
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise ConfigurationError(f"{self.path} can't be made ({error.strerror}); set XDG_STATE_HOME.") from error
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for private in (self.logs, self.path / "keys"):
            private.mkdir(mode=0o700)

    def load(self) -> State | None:
        """None when there is no federation here, or one that was never recorded."""
        try:
            value = json.loads(self.state_file.read_bytes())
            processes = {part: Process(**process) for part, process in value["processes"].items()}
            return State(Plan.from_dict(value["plan"]), value["port"], processes, value["facts"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{self.state_file} is damaged ({error}); remove its folder by hand.") from error

    def store(self, state: State) -> None:
        """Replaces the file in one step; it holds passwords, so only the owner may read it."""
        value = {**asdict(state), "plan": state.plan.as_dict()}
        write_private(self.state_file, json.dumps(value, indent=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time for each name. Raises ConfigurationError where this user may not write."""
        lock = self.path.parent / f".{self.path.name}.lock"
        with _lock(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)


def _lock(path: Path) -> IO[str]:
    """The locked file, which is still the one at ``path``: whoever held it before removes it at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()
    except OSError as error:
        raise ConfigurationError(f"{path.parent} can't be written ({error.strerror}); set XDG_STATE_HOME.") from error


def write_private(path: Path, text: str) -> None:
    """Mode 0600 from its first byte on; whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.rename(path)
