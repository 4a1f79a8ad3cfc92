"""Algorithms as plain processes, where no engine can run: for development only.

Each has a minder (``minder.py``), a namespace of its own as far as the machine allows, and a folder below ``folder``
in which its end is written down, so that a restarted node finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from skerry_node.areas import CAP_SETUID, has_capability
from skerry_node.config import Limits
from skerry_node.launchers import minder
from skerry_node.launchers.launcher import (
    AlreadyStarted,
    Attempt,
    Ended,
    Found,
    Image,
    ImageNotFound,
    LauncherError,
    Layout,
    Phase,
    Spec,
    StartFailed,
    Vanished,
)
from skerry_node.launchers.separation import Separation
from skerry_node.pulled import PulledImages

_MINDER = "minder"
_OPEN_FILES = 4096
_INHERITED = 3
"""The descriptor of the socket in a minder."""
_PROBE_SECONDS = 30
_PHRASES = {
    Separation.USER: "user namespace",
    Separation.MOUNT: "mount namespace",
    Separation.NETWORK: "network namespace (an algorithm can reach whatever this machine can)",
    Separation.IPC: "ipc namespace",
    Separation.PID: "process namespace (an algorithm sees this machine's processes)",
}
_ALWAYS = (
    "file system: an algorithm can read what its user can read on this machine",
    "engine's bounds: memory and processes are bounded by setrlimit only, CPU is not",
)


class Entry(BaseModel):
    """A registered folder, as ``skerry algorithm build --launcher process`` writes it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str
    digest: str
    package: str
    python: str
    folder: str
    ports: list[int] = []


@dataclass(frozen=True, slots=True)
class Prepared:
    """A minder that waits for what to start."""

    node: socket.socket
    listener: socket.socket


class ProcessLauncher:
    """Processes of one installation."""

    def __init__(self, registry: Path, folder: Path, limits: Limits) -> None:
        self._registry = registry
        self._folder = folder
        self._limits = limits
        self._prepared: dict[Attempt, Prepared] = {}
        self._lock = threading.Lock()
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._separations, self._missing = _probe()
        root = os.geteuid() == 0 and has_capability(CAP_SETUID) and Separation.USER not in self._separations
        self._closed = next(_closed_folders(Path(sys.executable), registry, folder), None) if root else None
        self._own_users = root and self._closed is None

    @property
    def own_users(self) -> bool:
        return self._own_users

    @property
    def unix_gate(self) -> bool:
        return False

    @property
    def sandboxed(self) -> bool:
        return False

    def missing(self) -> list[str]:
        phrases = [_phrase(one, reason) for one, reason in self._missing.items()]
        if not self._own_users:
            why = f", since {self._closed} is closed to others" if self._closed else ""
            phrases.append(f"user: an algorithm runs as the node's own user{why}")
        return [*phrases, *_ALWAYS]

    def resolve(self, reference: str) -> Image:
        entry = self._find(reference)
        return Image(reference, entry.digest, (entry.digest,), tuple(entry.ports))

    def prepare(self, attempt: Attempt) -> socket.socket:
        folder = self._home(attempt)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o711)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = _spawn(["mind", str(_INHERITED), str(folder), *self._separations], theirs)
        (folder / _MINDER).write_text(f"{pid} {_start_time(pid)}")
        listener = _receive_listener(ours)
        with self._lock:
            self._prepared[attempt] = Prepared(ours, listener)
        return listener

    def layout(self, spec: Spec) -> Layout:
        with self._lock:
            port = self._prepared[spec.attempt].listener.getsockname()[1]
        databases = {source.label: str(source.path) for source in spec.sources}
        return Layout(str(spec.task_folder), str(spec.temporary), databases, port)

    def start(self, spec: Spec, environment: Mapping[str, str]) -> None:
        with self._lock:
            prepared = self._prepared.pop(spec.attempt, None)
        if prepared is None:
            raise AlreadyStarted(f"Attempt {spec.attempt.number} of run {spec.attempt.run} was started.")
        entry = self._find(spec.image.reference)
        if entry.digest != spec.image.id:
            raise ImageNotFound(f"The image {spec.image.reference} was built anew in the meantime.")
        request = self._request(spec, entry, environment)
        with prepared.node:
            (self._home(spec.attempt) / "port").write_text(str(prepared.listener.getsockname()[1]))
            answer = _exchange(prepared.node, request)
        if answer["error"]:
            raise StartFailed(f"The image {spec.image.reference} can't be started: {answer['error']}")

    def open_namespace(self, attempt: Attempt) -> int:
        raise LauncherError(f"Run {attempt.run} has no network namespace of its own, and so no VPN.")

    def attach(self, attempt: Attempt) -> socket.socket:
        port = self._home(attempt) / "port"
        return self.listen(attempt, int(port.read_text()) if port.exists() else 0)

    def listen(self, attempt: Attempt, port: int) -> socket.socket:
        pid = self._minder(attempt)
        if pid is None:
            raise Vanished(f"The process of run {attempt.run} is gone.")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            helper = _spawn(["listen", str(_INHERITED), str(pid), str(port)], theirs)
            theirs.close()
            listener = _receive_listener(ours)
            os.waitpid(helper, 0)
        return listener

    def poll(self, attempt: Attempt, timeout: float) -> Ended | None:
        pid = self._minder(attempt)
        if pid is not None and not _wait(pid, timeout):
            return None
        code = self._exit_code(attempt)
        if code is None:
            raise Vanished(f"The process of run {attempt.run} is gone.")
        return Ended(code if code >= 0 else 128 - code)

    def logs(self, attempt: Attempt) -> str:
        with contextlib.suppress(OSError):
            return (self._home(attempt) / minder.LOG).read_text(errors="replace")
        return ""

    def stop(self, attempt: Attempt) -> None:
        pid = self._minder(attempt)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def remove(self, attempt: Attempt) -> None:
        with self._lock:
            prepared = self._prepared.pop(attempt, None)
        if prepared is not None:
            prepared.node.close()
        pid = self._minder(attempt)
        if pid is not None:
            self.stop(attempt)
            _wait(pid, None)
        shutil.rmtree(self._home(attempt), ignore_errors=True)

    def tidy(self, pulled: PulledImages, needed: Collection[str]) -> None:
        """Images here are folders of whoever built them."""

    def list(self) -> list[Found]:
        return [self._describe(path) for path in sorted(self._folder.iterdir())]

    def close(self) -> None:
        """Nothing was made ahead but minders that were not told what to start."""
        with self._lock:
            waiting, self._prepared = self._prepared, {}
        for prepared in waiting.values():
            prepared.node.close()

    def _home(self, attempt: Attempt) -> Path:
        return self._folder / str(attempt)

    def _find(self, reference: str) -> Entry:
        """Raises ImageNotFound."""
        name, _, digest = reference.partition("@")
        for spelling in (name, f"{name}:latest", name.removesuffix(":latest")):
            path = self._registry / quote(spelling, safe="") / "image.json"
            if path.is_file():
                entry = _read_entry(path)
                if digest in {"", entry.digest}:
                    return entry
        raise ImageNotFound(
            f"The image {reference} is not in this node's registry of folders; build it with: "
            "skerry algorithm build --launcher process"
        )

    def _request(self, spec: Spec, entry: Entry, environment: Mapping[str, str]) -> dict[str, Any]:
        home = spec.task_folder / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        if spec.user is not None:
            os.chown(home, spec.user, spec.user)
        return {
            "command": [entry.python, "-c", "from skerry.entrypoint import main; main()"],
            "environment": {**_base_environment(entry, home), **environment},
            "folder": str(home),
            "limits": self._bounds(spec.user),
            "user": spec.user,
            "groups": list(spec.groups),
            "log": self._limits.log,
        }

    def _bounds(self, user: int | None) -> dict[str, int]:
        size = max(self._limits.output, self._limits.temporary)
        bounds = {"CORE": 0, "NOFILE": _OPEN_FILES, "FSIZE": size, "DATA": self._limits.memory}
        # RLIMIT_NPROC counts all of a user's processes: a bound only where the user is the run's own.
        return bounds if user is None else {**bounds, "NPROC": self._limits.processes}

    def _minder(self, attempt: Attempt) -> int | None:
        """The pid of the minder while it lives; a later process of the same number is not it."""
        try:
            pid, started = (self._home(attempt) / _MINDER).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _start_time(int(pid)) == started else None

    def _exit_code(self, attempt: Attempt) -> int | None:
        try:
            return int((self._home(attempt) / minder.EXIT).read_text())
        except (OSError, ValueError):
            return None

    def _describe(self, path: Path) -> Found:
        run, _, number = path.name.partition("-")
        attempt = Attempt(int(run), int(number))
        if not (path / minder.STARTED).exists():
            return Found(attempt, Phase.CREATED)
        return Found(attempt, Phase.EXITED if self._minder(attempt) is None else Phase.RUNNING)


def list_missing() -> list[str]:
    """What this machine does not allow, without a launcher. Raises LauncherError."""
    return [*(_phrase(one, reason) for one, reason in _probe()[1].items()), *_ALWAYS]


def _phrase(one: Separation, reason: str) -> str:
    return f"{_PHRASES[one]}: {reason}"


def _probe() -> tuple[list[Separation], dict[Separation, str]]:
    command = [sys.executable, "-m", minder.__name__, "probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS, env=_paths())
    if done.returncode != 0:
        raise LauncherError(f"The process launcher does not work on this machine: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout)
    missing = {Separation(name): reason for name, reason in found["missing"].items()}
    return [Separation(name) for name in found["use"]], missing


def _spawn(arguments: list[str], inherited: socket.socket) -> int:
    """A minder in a session of its own, so that what ends the node does not end it; its pid.

    Not ``subprocess``: that keeps an eye on its children, and these are to be forgotten.
    """
    command = [sys.executable, "-m", minder.__name__, *arguments]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, inherited.fileno(), _INHERITED),
    ]
    return os.posix_spawn(command[0], command, _paths(), file_actions=actions, setsid=True)


def _wait(pid: int, timeout: float | None) -> bool:
    """Whether the minder has ended; one that is this process's own child is collected then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(descriptor)
    if ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return ended


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _receive_listener(node: socket.socket) -> socket.socket:
    """Raises LauncherError when the other side ended instead."""
    _, descriptors, _, _ = socket.recv_fds(node, 64, 1)
    if not descriptors:
        raise LauncherError("The process launcher can't open a gate; the node's log says why.")
    return socket.socket(fileno=descriptors[0])


def _exchange(node: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    try:
        node.send(json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(node.recv(minder.LARGEST_REQUEST))
    except (OSError, ValueError) as error:
        raise LauncherError("The process launcher broke off while starting a process.") from error
    return answer


def _read_entry(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ImageNotFound(f"The registry's entry {path} is damaged; build the image again.") from error


def _base_environment(entry: Entry, home: Path) -> dict[str, str]:
    """What an image would set, and a home. Nothing of the node's own."""
    return {
        "PKG_NAME": entry.package,
        "PYTHONPATH": os.pathsep.join([entry.folder, *(path for path in sys.path if path)]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "USER": "skerry-run",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _closed_folders(*paths: Path) -> Iterator[Path]:
    """The folders above these, as written and as resolved, that other users can't enter."""
    for path in (*paths, *(path.resolve() for path in paths)):
        yield from (parent for parent in path.absolute().parents if not parent.stat().st_mode & 0o001)


def _start_time(pid: int) -> str:
    """Clock ticks since boot, field 22 of /proc/<pid>/stat; empty for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
