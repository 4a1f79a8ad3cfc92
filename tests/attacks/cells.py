"""The ground for hostile algorithms: a federation whose node runs them, or a launcher where one defence is missing."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "acceptance"))
sys.path.insert(0, str(Path(__file__).parent.parent / "algorithms" / "attacker"))
from devfederation import DevFederation, build, start

from skerry_node import areas, environment
from skerry_node import output as outputs
from skerry_node.config import DockerSettings, Limits
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.launchers.launcher import Attempt, LauncherError, Source, Spec, StartFailed
from skerry_node.output import BadOutput

IMAGE = "skerry-tests/attacker"
RELAY_IMAGE = f"{IMAGE}-relays"
"""The same, which the owner has opened ways out to."""
ATTACKER = Path(__file__).parent.parent / "algorithms" / "attacker"
PATIENCE = 240.0
LIMITS = {"memory": "400m", "processes": 256, "output": "16m", "temporary": "8m", "log": "64k"}
"""Of the node that is attacked: low, so that a bomb that goes off in a control does no harm."""

BOMBS = {"processes": 300, "memory": 600, "disk": 32, "shm": 96, "inodes": 70_000, "marker_seconds": 15}
ALONE = frozenset({"fork-bomb", "memory-bomb"})
"""What may take its whole container with it."""

AREA_MODE = 0o755
"""Of the area that a run's folder lies in: who may put something else in its place."""

ONE_AREA = False
"""Whether runs share the area that their folders lie in: for the control of that attack."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended for who asked: its value where there is one, and what is said of it where there is none."""

    value: Any
    said: str
    log: str


class Cell(Protocol):
    """Where an attacker's image is run. ``facts`` is what the attacker knows of its surroundings."""

    facts: dict[str, Any]

    def run(self, image: str, function: str, **arguments: Any) -> Outcome: ...

    def strike(self, name: str, image: str = IMAGE) -> tuple[bool, str]: ...


# --- the node's real path ---------------------------------------------------------------------------------


@dataclass
class Federated:
    """A task at a server, a node of ``skerry dev``, a container. ``together``: what is tried at once, by image."""

    federation: DevFederation
    facts: dict[str, Any]
    together: Mapping[str, Sequence[str]]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def run(self, image: str, function: str, **arguments: Any) -> Outcome:
        return self.run_task(image, function, **arguments)[0]

    def run_task(self, image: str, function: str, **arguments: Any) -> tuple[Outcome, int, int]:
        """With the numbers of the task and its run."""
        client = self.federation.client()
        task = client.task.create(
            organizations=self.federation.organization_ids[:1],
            name=function,
            image=image,
            collaboration=self.federation.collaboration_id,
            databases=[{"label": "default"}],
            input_={"method": function, "kwargs": arguments},
        )
        self.federation._wait(task["id"], lambda answer: bool(answer["finished"]))
        [run] = client.run.from_task(task["id"])["data"]
        log = str(run["log"] or "")
        if run["status"] != "completed":
            return Outcome(None, f"{run['status']}: {log}", log), task["id"], run["id"]
        [value] = task.wait(timeout=PATIENCE).results()
        return Outcome(value, "completed", log), task["id"], run["id"]

    def _try_together(self, image: str) -> Outcome:
        if image not in self.outcomes:
            names = sorted({*self.together[image]} - ALONE)
            self.outcomes[image] = self.run(image, "strike", names=names, facts=self.facts)
        return self.outcomes[image]

    def strike(self, name: str, image: str = IMAGE) -> tuple[bool, str]:
        if name in self.together.get(image, ()) and name not in ALONE:
            return _read_strike(name, self._try_together(image))
        return _read_strike(name, self.run(image, "strike", names=[name], facts=self.facts))


def _read_strike(name: str, outcome: Outcome) -> tuple[bool, str]:
    if outcome.value is None:
        return False, outcome.said
    succeeded, seen = outcome.value[name]
    return bool(succeeded), str(seen)


@contextmanager
def federated(runtime: str, together: Mapping[str, Sequence[str]]) -> Iterator[Federated]:
    """Two nodes; the first is attacked, and knows what an attacker of the second could have."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-cells-")))
        folder.chmod(0o711)
        facts = stack.enter_context(surroundings(folder))
        settings = folder / "settings.json"
        settings.write_text(json.dumps({"limits": LIMITS, "docker": {"runtime": runtime}, **ways_out(facts)}))
        database = folder / "table.csv"
        database.write_text("age\n1\n")
        arguments = ("--nodes", "2", "--database", f"default={database}", "--node-settings", str(settings))
        cell = Federated(stack.enter_context(start(*arguments)), facts, together)
        shown, task, run = cell.run_task(IMAGE, "show_token")
        facts |= {
            "organization": cell.federation.organization_ids[0],
            "outsider": 9999,
            "other_token": shown.value,
            "other_task": task,
            "other_run": run,
            "other_node": 2,
        }
        yield cell


def ways_out(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the owner opens to one image: a service, and by egress the same and a name that leads inside."""
    opened = f"127.0.0.1:{facts['open_port']}"
    return {
        "gates": [{"name": "open", "destination": opened, "algorithms": [RELAY_IMAGE]}],
        "egress": {"allowed": [opened, f"localhost:{facts['open_port']}"], "algorithms": [RELAY_IMAGE]},
    }


# --- a launcher of this process, where something may be replaced ------------------------------------------


@dataclass
class Loose:
    """The launcher's real path without a federation; ``together`` is tried at once."""

    folder: Path
    facts: dict[str, Any]
    together: Sequence[str]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @cached_property
    def _outcome(self) -> Outcome:
        return self.run(IMAGE, "strike", names=list(self.together), facts=self.facts)

    def strike(self, name: str, image: str = IMAGE) -> tuple[bool, str]:
        if image == IMAGE:
            return _read_strike(name, self._outcome)
        return _read_strike(name, self.run(image, "strike", names=[name], facts=self.facts))

    def run(self, image: str, function: str, **arguments: Any) -> Outcome:
        limits = Limits.model_validate(LIMITS)
        launcher = DockerLauncher(
            DockerSettings(host=os.environ.get("DOCKER_HOST"), holder_pool=0), limits, secrets.token_hex(6), "cell"
        )
        attempt = Attempt(next(self.numbers), 1)
        user = 2_000_000 + secrets.randbelow(100_000)
        data, temporary = self.folder / f"data-{attempt}", self.folder / f"temporary-{attempt}"
        try:
            areas.make(data, limits.output, mode=AREA_MODE, user=None, group=None)
            areas.make(temporary, limits.temporary, mode=0o700, user=user, group=user)
            sources = (Source("default", self.folder / "table.csv", "csv"),)
            spec = Spec(attempt, 1, launcher.resolve(image), data, temporary, sources, user)
            self._fill(spec, {"method": function, "args": [], "kwargs": arguments})
            return self._run(launcher, spec)
        except (LauncherError, StartFailed) as error:
            return Outcome(None, f"not started: {error}", "")
        finally:
            launcher.remove(attempt)
            launcher.close()
            for path in (data, temporary):
                areas.remove(path)

    def _fill(self, spec: Spec, asked: Mapping[str, Any]) -> None:
        assert spec.user is not None
        spec.task_folder.mkdir(mode=0o700)
        for name, text in (("input", json.dumps(asked)), ("output", ""), ("token", "none")):
            (spec.task_folder / name).write_text(text)
        for path in (*spec.task_folder.iterdir(), spec.task_folder):
            os.chown(path, spec.user, spec.user)
        if ONE_AREA:
            other = spec.data / "task-000000099"
            other.mkdir(mode=0o755)
            (other / "output").write_text("another's result")

    def _run(self, launcher: DockerLauncher, spec: Spec) -> Outcome:
        assert spec.user is not None
        with launcher.prepare(spec.attempt):
            layout = launcher.layout(spec)
            launcher.start(spec, environment.build(layout, spec.sources, ["default"], [{}]))
            ended = launcher.poll(spec.attempt, PATIENCE)
        log = launcher.logs(spec.attempt)
        if ended is None or (ended.code, ended.reason) != (0, None):
            return Outcome(None, f"{ended}: {log[-1500:]}", log)
        try:
            output = outputs.open_output(spec.task_folder, owner=spec.user, limit=16 << 20)
        except BadOutput as error:
            return Outcome(None, str(error), log)
        with os.fdopen(output.descriptor, "rb") as file:
            return Outcome(_parse(file.read(1 << 20)), "taken for a result", log)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("latin-1")


@contextmanager
def loose(together: Sequence[str]) -> Iterator[Loose]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-cells-")))
        folder.chmod(0o711)
        (folder / "table.csv").write_text("age\n1\n")
        (folder / "table.csv").chmod(0o644)
        yield Loose(folder, stack.enter_context(surroundings(folder)), together)


# --- what there is to be reached --------------------------------------------------------------------------


@contextmanager
def surroundings(folder: Path) -> Iterator[dict[str, Any]]:
    """A service, a name server, an abstract socket and a file of this machine, each of which tells who reached it."""
    canary = folder / "canary"
    canary.write_text("canary")
    canary.chmod(0o644)
    (folder / "output").write_text("canary")
    (folder / "output").chmod(0o644)
    with ExitStack() as stack:
        service = stack.enter_context(socket.create_server(("0.0.0.0", 0)))  # noqa: S104 - to be found at any address
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"skerry-canary-{secrets.token_hex(6)}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        names = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        names.bind(("127.0.0.1", 0))
        opened = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        onward = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{service.getsockname()[1]}/\r\n\r\n".encode()
        for listener, says in ((service, b"canary"), (abstract, b"canary"), (opened, onward)):
            stack.callback(_ended(threading.Thread(target=_tell, args=[listener, says], daemon=True), listener))
        stack.callback(_ended(threading.Thread(target=_echo, args=[names], daemon=True), names))
        yield {
            "port": service.getsockname()[1],
            "open_port": opened.getsockname()[1],
            "address": _own_address(),
            "abstract": name,
            "name_server": names.getsockname()[1],
            "canary_file": str(canary),
            **BOMBS,
        }


def _ended(thread: threading.Thread, served: socket.socket) -> Callable[[], None]:
    """Starts the thread; what is given ends it."""
    thread.start()

    def end() -> None:
        served.shutdown(socket.SHUT_RDWR) if served.type == socket.SOCK_STREAM else _wake(served)
        thread.join()

    return end


def _wake(served: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.sendto(b"end", served.getsockname())


def _tell(listener: socket.socket, says: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_say, args=[connection, says], daemon=True).start()


def _say(connection: socket.socket, says: bytes) -> None:
    """And stays until the other side goes."""
    with connection, suppress(OSError):
        connection.sendall(says)
        connection.settimeout(PATIENCE)
        while connection.recv(4096):
            pass


def _echo(names: socket.socket) -> None:
    while True:
        asked, who = names.recvfrom(64)
        if asked == b"end":
            return
        names.sendto(b"canary", who)


def _own_address() -> str:
    """One that others would reach this machine by; without a network there is none but its loopback."""
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    return next((one for one in shown if ":" not in one), "127.0.0.1")


# --- images -----------------------------------------------------------------------------------------------


def build_attacker() -> str:
    return build(ATTACKER, IMAGE)


def build_trick(name: str, *lines: str) -> str:
    """The attacker's image with something more."""
    tag = f"skerry-tests/attacker-{name}"
    dockerfile = "\n".join([f"FROM {IMAGE}", *lines, ""])
    command = ["docker", "build", "-q", "--network", "none", "-t", tag, "-"]
    built = subprocess.run(command, input=dockerfile, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return tag
