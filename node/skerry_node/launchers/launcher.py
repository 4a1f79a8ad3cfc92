"""How a run's algorithm is started, whatever it runs in. Each implementation passes ``tests/contract``."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from skerry.errors import SkerryError
from skerry_node.pulled import PulledImages


class LauncherError(SkerryError):
    """The engine does not do what was asked of it, or does not answer; the sentence is for the node's owner."""


class EngineAway(LauncherError):
    """The engine does not answer: it may be being restarted, and what was asked of it is not done."""


class ImageNotFound(SkerryError):
    """The image is not here and can't be had; the sentence is for the user."""


class StartFailed(SkerryError):
    """The image can't be started; the sentence is for the user."""


class AlreadyStarted(SkerryError):
    """This attempt has been started before: it never is a second time."""


class Vanished(SkerryError):
    """There is nothing (any more) of this attempt."""


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One start of a run. Its text is a name for files and containers."""

    run: int
    number: int

    def __str__(self) -> str:
        return f"{self.run}-{self.number}"


@dataclass(frozen=True, slots=True)
class Image:
    """A reference, and what it means here and now: ``id`` can't be moved to something else.

    ``variables`` are the names in the environment that the image brings along. ``new``: it was not on the machine
    before it was asked for. ``ports`` and ``labels`` are what it declares.
    """

    reference: str
    id: str
    digests: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    new: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A database of the owner, as it lies on this machine."""

    label: str
    path: Path
    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spec:
    """All that one start needs, but its environment.

    ``data`` is the folder that holds ``task-%09d``, ``temporary`` the one that the job's runs share. ``user`` None
    is the node's own user. ``gpus`` is how many of the machine's it gets, -1 for all.
    """

    attempt: Attempt
    job: int
    image: Image
    data: Path
    temporary: Path
    sources: tuple[Source, ...] = ()
    user: int | None = None
    groups: tuple[int, ...] = ()
    gpus: int = 0

    @property
    def task_folder(self) -> Path:
        return self.data / task_folder(self.attempt.run)


def task_folder(run: int) -> str:
    """The name that the contract gives the folder of a run."""
    return f"task-{run:09d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the algorithm finds things. ``databases`` maps labels to paths; ``socket`` is the gate's unix socket, where
    that is the way to it.
    """

    folder: str
    temporary: str
    databases: Mapping[str, str]
    port: int
    socket: str | None = None


class Phase(StrEnum):
    """``CREATED``: certainly never started."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Found:
    attempt: Attempt
    phase: Phase


@dataclass(frozen=True, slots=True)
class Ended:
    """How an algorithm ended. ``reason`` is a sentence where the sandbox ended it, or where it never came to run.

    ``late``: it was ended since it took longer than this node allows.
    """

    code: int
    reason: str | None = None
    started: bool = True
    late: bool = False


class Launcher(Protocol):
    """Starts, watches and stops attempts. Safe for threads. Every method may raise LauncherError."""

    @property
    def own_users(self) -> bool:
        """Whether each run can be a user of its own."""

    @property
    def sandboxed(self) -> bool:
        """Whether it promises the restricted profile, so that a node has to try it before it takes runs."""

    def missing(self) -> list[str]:
        """The separations that this launcher can't keep on this machine, a phrase each."""

    @property
    def unix_gate(self) -> bool:
        """Whether the gate is to listen on a unix socket in the run's data folder, too."""

    def resolve(self, reference: str) -> Image:
        """Pulls the image when the node's policy says so. Raises ImageNotFound."""

    def prepare(self, attempt: Attempt) -> socket.socket:
        """A place to start in, and the listener of the gate in it, which is the caller's to close."""

    def layout(self, spec: Spec) -> Layout:
        """Where a start of this spec will show its files; after ``prepare``."""

    def start(self, spec: Spec, environment: Mapping[str, str]) -> None:
        """Starts a prepared attempt. Raises StartFailed, ImageNotFound, AlreadyStarted.

        Raises Vanished when the prepared place has ended and nothing was started in it: after ``remove``, the attempt
        can be prepared and started once more.
        """

    def listen(self, attempt: Attempt, port: int) -> socket.socket:
        """One more listener where the gate of a prepared or running attempt has its own; port 0 is any.

        Raises Vanished.
        """

    def open_namespace(self, attempt: Attempt) -> int:
        """A descriptor of the network namespace of a prepared or running attempt, the caller's to close.

        Raises Vanished.
        """

    def attach(self, attempt: Attempt) -> socket.socket:
        """A new listener for the gate of a running attempt, after the node was restarted.

        Raises Vanished, also when just the way to its gate is gone.
        """

    def poll(self, attempt: Attempt, timeout: float) -> Ended | None:
        """Waits up to ``timeout`` seconds for the end; None when it goes on. Raises Vanished."""

    def logs(self, attempt: Attempt) -> str:
        """What was written to standard output and error so far; empty when there is nothing of it."""

    def stop(self, attempt: Attempt) -> None:
        """Ends it at once; nothing happens when it has ended."""

    def remove(self, attempt: Attempt) -> None:
        """Leaves nothing of the attempt, whatever state it is in."""

    def list(self) -> list[Found]:
        """All attempts of this installation, also of earlier processes."""

    def tidy(self, pulled: PulledImages, needed: Collection[str]) -> None:
        """Removes those images that the owner's policy lets go, but for the ids in ``needed``."""

    def close(self) -> None:
        """Gives up what was made ahead; running attempts go on."""
