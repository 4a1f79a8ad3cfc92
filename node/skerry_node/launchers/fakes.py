"""Launchers that start nothing real: for tests of what stands on a launcher, with named ways to fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

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
from skerry_node.namespace import listen
from skerry_node.pulled import PulledImages

Behaviour = Callable[[Spec, "FakeContainer"], int]
"""What an image does: gets its start and its container, returns its exit code."""

_KILLED = 137


@dataclass
class FakeContainer:
    """A thread in place of a container. A behaviour that waits should wait for ``killed``."""

    phase: Phase = Phase.CREATED
    log: str = ""
    ended: Ended | None = None
    killed: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class FakeLauncher:
    """Starts Python functions in threads. ``images`` maps references to behaviours."""

    def __init__(self, images: Mapping[str, Behaviour]) -> None:
        self.images = dict(images)
        self.starts: list[Attempt] = []
        self.watched: list[Attempt] = []
        self._containers: dict[Attempt, FakeContainer] = {}
        self._listeners: dict[Attempt, socket.socket] = {}
        self._lock = threading.Lock()
        self.own_users = False
        self.unix_gate = False
        self.sandboxed = False

    def missing(self) -> list[str]:
        return ["everything: nothing real is started"]

    def resolve(self, reference: str) -> Image:
        if reference not in self.images:
            raise ImageNotFound(f"The image {reference} is not here.")
        return Image(reference, f"fake:{reference}")

    def prepare(self, attempt: Attempt) -> socket.socket:
        if attempt in self._listeners:
            self._listeners[attempt].close()
        listener = self._listeners[attempt] = listen(0)
        return listener

    def layout(self, spec: Spec) -> Layout:
        databases = {source.label: str(source.path) for source in spec.sources}
        port = self._listeners[spec.attempt].getsockname()[1]
        return Layout(str(spec.task_folder), str(spec.temporary), databases, port)

    def start(self, spec: Spec, environment: Mapping[str, str]) -> None:  # noqa: ARG002 - as the protocol says
        with self._lock:
            if spec.attempt in self._containers:
                raise AlreadyStarted(f"Attempt {spec.attempt} was started.")
            container = self._containers[spec.attempt] = FakeContainer()
            behaviour = self.images[spec.image.reference]
            if behaviour is unstartable:
                raise StartFailed(f"The image {spec.image.reference} can't be started.")
            container.phase = Phase.RUNNING
            self.starts.append(spec.attempt)
        threading.Thread(target=self._run, args=(behaviour, spec, container), daemon=True).start()

    def _run(self, behaviour: Behaviour, spec: Spec, container: FakeContainer) -> None:
        code = behaviour(spec, container)
        container.ended = Ended(_KILLED if container.killed.is_set() else code)
        container.phase = Phase.EXITED
        container.over.set()

    def listen(self, attempt: Attempt, port: int) -> socket.socket:
        if attempt not in self._listeners:
            raise Vanished(f"The container of run {attempt.run} is gone.")
        return listen(port)

    def open_namespace(self, attempt: Attempt) -> int:
        raise LauncherError(f"Run {attempt.run} has no network namespace of its own, and so no VPN.")

    def attach(self, attempt: Attempt) -> socket.socket:
        self._get(attempt)
        return self.prepare(attempt)

    def poll(self, attempt: Attempt, timeout: float) -> Ended | None:
        container = self._get(attempt)
        self.watched.append(attempt)
        container.over.wait(timeout)
        return container.ended

    def logs(self, attempt: Attempt) -> str:
        container = self._containers.get(attempt)
        return container.log if container else ""

    def stop(self, attempt: Attempt) -> None:
        container = self._containers.get(attempt)
        if container is not None:
            container.killed.set()

    def remove(self, attempt: Attempt) -> None:
        self.stop(attempt)
        self._containers.pop(attempt, None)
        listener = self._listeners.pop(attempt, None)
        if listener is not None:
            listener.close()

    def tidy(self, pulled: PulledImages, needed: Collection[str]) -> None:
        """Keeps no images."""

    def list(self) -> list[Found]:
        return [Found(attempt, container.phase) for attempt, container in self._containers.items()]

    def close(self) -> None:
        """Nothing was made ahead."""

    def forget(self, attempt: Attempt) -> None:
        """As if someone had removed the container behind the node's back."""
        del self._containers[attempt]

    def _get(self, attempt: Attempt) -> FakeContainer:
        try:
            return self._containers[attempt]
        except KeyError:
            raise Vanished(f"The container of run {attempt.run} is gone.") from None


class SlowLauncher(FakeLauncher):
    """Its pulls take until ``go`` is set."""

    def __init__(self, images: Mapping[str, Behaviour]) -> None:
        super().__init__(images)
        self.go = threading.Event()

    def resolve(self, reference: str) -> Image:
        self.go.wait()
        return super().resolve(reference)


class NeverLauncher(FakeLauncher):
    """Its engine does not answer."""

    def resolve(self, reference: str) -> Image:
        raise LauncherError(f"No engine answers, so {reference} can't be had.")


class ForgetfulLauncher(FakeLauncher):
    """Starts, and says that the engine broke off while doing so."""

    def start(self, spec: Spec, environment: Mapping[str, str]) -> None:
        super().start(spec, environment)
        raise LauncherError("The engine broke off.")


def copy_input(spec: Spec, container: FakeContainer) -> int:
    """Writes its input as its output, and says so."""
    container.log = "copied\n"
    (spec.task_folder / "output").write_bytes((spec.task_folder / "input").read_bytes())
    return 0


def fail(spec: Spec, container: FakeContainer) -> int:  # noqa: ARG001 - as a behaviour is
    """Ends with code 3."""
    container.log = "about to fail\n"
    return 3


def write_nothing(spec: Spec, container: FakeContainer) -> int:  # noqa: ARG001 - as a behaviour is
    """Ends well, without a result."""
    return 0


def wait_for_kill(spec: Spec, container: FakeContainer) -> int:  # noqa: ARG001 - as a behaviour is
    """Goes on until it is stopped."""
    container.log = "waiting\n"
    container.killed.wait()
    return 0


def unstartable(spec: Spec, container: FakeContainer) -> int:  # noqa: ARG001 - as a behaviour is
    """Is never reached: its start fails."""
    return 1
