"""What every launcher promises, whatever it starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from skerry_node import areas, environment
from skerry_node.config import DockerSettings, Limits
from skerry_node.launchers import fakes
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.launchers.launcher import (
    AlreadyStarted,
    Attempt,
    Ended,
    ImageNotFound,
    Launcher,
    Phase,
    Spec,
    StartFailed,
    Vanished,
)
from skerry_node.launchers.process import ProcessLauncher

pytestmark = pytest.mark.contract

PATIENCE = 60.0
ATTEMPT = Attempt(7, 1)
LIMITS = Limits(memory=256 << 20, processes=32, temporary=1 << 20, output=1 << 20, log=4096)

SCRIPTS = {
    "copy": "cd /mnt/data/task-*; /busybox cat input > output; echo copied; echo warned >&2",
    "fail": "echo about to fail; exit 3",
    "wait": "echo waiting; /busybox sleep 1000",
    "flood": "i=0; while [ $i -lt 2000 ]; do echo line number $i; i=$((i+1)); done",
}
FUNCTIONS = """
import os, sys, time
def copy():
    print("copied", flush=True)
    print("warned", file=sys.stderr, flush=True)
    return {"method": "copy"}
def fail():
    print("about to fail", flush=True)
    os._exit(3)
def wait():
    print("waiting", flush=True)
    time.sleep(1000)
def flood():
    for i in range(2000): print("line number", i)
    os._exit(0)
"""


@dataclass
class Site:
    """A launcher, how to make another one as after a restart, and where its runs' files lie."""

    make: Callable[[], Launcher]
    launcher: Launcher
    folder: Path
    user: int | None
    listeners: list[socket.socket] = field(default_factory=list)

    def prepare(self, attempt: Attempt = ATTEMPT) -> socket.socket:
        self.listeners.append(self.launcher.prepare(attempt))
        return self.listeners[-1]

    def restart(self) -> None:
        self.launcher.close()
        self.launcher = self.make()

    def spec(self, image: str, attempt: Attempt = ATTEMPT) -> Spec:
        data, temporary = self.folder / f"data-{attempt}", self.folder / f"temporary-{attempt}"
        areas.make(data, 1 << 20, mode=0o755, user=None, group=None)
        areas.make(temporary, 1 << 20, mode=0o777, user=None, group=None)
        spec = Spec(attempt, 5, self.launcher.resolve(image), data, temporary, (), self.user)
        spec.task_folder.mkdir(exist_ok=True)
        for name, text in (("input", json.dumps({"method": image})), ("output", ""), ("token", "x")):
            (spec.task_folder / name).write_text(text)
        if self.user is not None:
            for path in (spec.task_folder, *spec.task_folder.iterdir()):
                os.chown(path, self.user, self.user)
        return spec

    def start(self, image: str, attempt: Attempt = ATTEMPT) -> Spec:
        spec = self.spec(image, attempt)
        self.prepare(attempt)
        layout = self.launcher.layout(spec)
        self.launcher.start(spec, environment.build(layout, (), (), ()))
        return spec

    def wait(self, attempt: Attempt = ATTEMPT) -> Ended:
        ended = self.launcher.poll(attempt, PATIENCE)
        assert ended is not None
        return ended


def fake_site(folder: Path) -> Site:
    images = {"copy": fakes.copy_input, "fail": fakes.fail, "wait": fakes.wait_for_kill, "broken": fakes.unstartable}
    launcher = fakes.FakeLauncher({**images, "flood": flood})
    return Site(lambda: launcher, launcher, folder, None)


def flood(spec: Spec, container: fakes.FakeContainer) -> int:
    container.log = "".join(f"line number {i}\n" for i in range(2000))
    return 0


def process_site(folder: Path) -> Site:
    registry, content = folder / "registry", folder / "content"
    content.mkdir()
    (content / "things.py").write_text(FUNCTIONS)
    for name in (*SCRIPTS, "broken"):
        home = registry / quote(name, safe="")
        home.mkdir(parents=True)
        python = sys.executable if name != "broken" else "/nowhere/python"
        entry = {"name": name, "digest": "sha256:0", "package": "things", "python": python}
        (home / "image.json").write_text(json.dumps({**entry, "folder": str(content), "ports": []}))

    def make() -> ProcessLauncher:
        return ProcessLauncher(registry, folder / "processes", LIMITS)

    return Site(make, make(), folder, None)


def docker_site(folder: Path, images: dict[str, str]) -> Site:
    class Renamed(DockerLauncher):
        """Knows the suite's images by their short names."""

        def resolve(self, reference: str):
            return super().resolve(images.get(reference, reference))

    def make() -> DockerLauncher:
        return Renamed(
            DockerSettings(host=os.environ.get("DOCKER_HOST"), holder_image=images["holder"], holder_pool=1),
            LIMITS,
            "c0ffee",
            "contract",
        )

    return Site(make, make(), folder, 70007)


@pytest.fixture(scope="module")
def busybox_images(images) -> Iterator[dict[str, str]]:
    """Tiny images on the namespace holder's, which is nothing but a static busybox."""
    commands = {name: ["/busybox", "sh", "-c", script] for name, script in SCRIPTS.items()}
    commands["broken"] = ["/bin/python3"]
    names = {name: f"skerry-tests/contract-{name}" for name in commands}
    for name, command in commands.items():
        dockerfile = f"FROM skerry/holder\nENTRYPOINT []\nCMD {json.dumps(command)}\n"
        build = ["docker", "build", "-q", "-t", names[name], "-"]
        subprocess.run(build, input=dockerfile.encode(), check=True, capture_output=True)
    yield {**names, "holder": "skerry/holder"}
    subprocess.run(["docker", "rmi", "-f", *names.values()], check=True, capture_output=True)


@pytest.fixture(params=["fake", "process", "docker"])
def site(request, tmp_path) -> Iterator[Site]:
    if request.param == "docker":
        made = docker_site(tmp_path, request.getfixturevalue("busybox_images"))
    else:
        made = {"fake": fake_site, "process": process_site}[request.param](tmp_path)
    yield made
    for listener in made.listeners:
        listener.close()
    for found in made.launcher.list():
        made.launcher.remove(found.attempt)
    made.launcher.close()
    for folder in (*tmp_path.glob("data-*"), *tmp_path.glob("temporary-*")):
        areas.remove(folder)


real = pytest.mark.parametrize("site", ["process", "docker"], indirect=True)
"""For what a fake can't show."""


def test_an_algorithm_that_ends_well(site) -> None:
    spec = site.start("copy")
    assert site.wait() == Ended(0)
    assert json.loads((spec.task_folder / "output").read_text())["method"] == "copy"
    assert "copied" in site.launcher.logs(ATTEMPT)
    assert site.launcher.list()[0].phase is Phase.EXITED


def test_one_that_fails(site) -> None:
    site.start("fail")
    assert site.wait().code == 3
    assert "about to fail" in site.launcher.logs(ATTEMPT)


def test_an_image_that_nobody_has(site) -> None:
    with pytest.raises(ImageNotFound, match="nobody/has-this"):
        site.launcher.resolve("nobody/has-this:1")


def why_not_started(site) -> str:
    try:
        site.start("broken")
    except StartFailed as error:
        return f"{error} (python)" if isinstance(site.launcher, fakes.FakeLauncher) else str(error)
    ended = site.wait()
    return "" if ended.started else str(ended.reason)


def test_an_image_that_can_not_be_started(site) -> None:
    """Said at once where the launcher can tell, else by how it ended."""
    assert "python" in why_not_started(site)
    site.launcher.remove(ATTEMPT)
    assert site.launcher.list() == []


def test_nothing_is_started_twice(site) -> None:
    spec = site.start("wait")
    with pytest.raises(AlreadyStarted):
        site.launcher.start(spec, {})


def test_poll_does_not_wait_longer_than_told(site) -> None:
    site.start("wait")
    assert site.launcher.poll(ATTEMPT, 0.2) is None


def test_stop_ends_it_at_once(site) -> None:
    site.start("wait")
    stopper = threading.Timer(0.3, site.launcher.stop, [ATTEMPT])
    stopper.start()
    assert site.wait().code == 137
    stopper.join()
    site.launcher.stop(ATTEMPT)


def test_stop_of_what_never_was(site) -> None:
    site.launcher.stop(Attempt(99, 1))
    site.launcher.remove(Attempt(99, 1))
    assert site.launcher.logs(Attempt(99, 1)) == ""
    with pytest.raises(Vanished):
        site.launcher.poll(Attempt(99, 1), 1)


def test_attempts_are_told_apart(site) -> None:
    other = Attempt(7, 2)
    site.start("wait")
    site.start("copy", other)
    assert site.wait(other).code == 0
    phases = {found.attempt: found.phase for found in site.launcher.list()}
    assert phases == {ATTEMPT: Phase.RUNNING, other: Phase.EXITED}


def test_remove_leaves_nothing(site) -> None:
    site.start("wait")
    site.launcher.remove(ATTEMPT)
    assert site.launcher.list() == []
    with pytest.raises(Vanished):
        site.launcher.poll(ATTEMPT, 1)


def test_the_gate_listens_before_the_start(site) -> None:
    listener = site.prepare()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert listener.getsockname()[0] == "127.0.0.1"
    site.launcher.remove(ATTEMPT)


def test_a_running_attempt_outlives_the_launcher(site) -> None:
    site.start("wait")
    site.restart()
    assert [(found.attempt, found.phase) for found in site.launcher.list()] == [(ATTEMPT, Phase.RUNNING)]
    site.launcher.stop(ATTEMPT)
    assert site.wait().code == 137


@real
def test_the_gate_of_a_running_attempt_is_opened_anew(site) -> None:
    """The first listener is closed, as by the end of the node that had it; the second has the same port."""
    spec = site.spec("wait")
    first = site.prepare()
    port = first.getsockname()[1]
    site.launcher.start(spec, environment.build(site.launcher.layout(spec), (), (), ()))
    first.close()
    site.restart()
    with site.launcher.attach(ATTEMPT) as second:
        assert second.getsockname() == ("127.0.0.1", port)


def test_an_end_is_known_after_a_restart(site) -> None:
    site.start("fail")
    site.wait()
    site.restart()
    assert site.wait().code == 3
    assert "about to fail" in site.launcher.logs(ATTEMPT)


def test_a_prepared_attempt_was_certainly_not_started(site) -> None:
    site.prepare()
    assert {found.phase for found in site.launcher.list()} <= {Phase.CREATED}
    site.launcher.remove(ATTEMPT)


@real
def test_a_long_log_is_bounded_and_keeps_its_end(site) -> None:
    site.start("flood")
    assert site.wait().code == 0
    text = site.launcher.logs(ATTEMPT)
    assert len(text) < 100_000
    assert "line number 1999" in text


def test_many_at_once(site) -> None:
    attempts = [Attempt(run, 1) for run in range(1, 5)]
    began = time.monotonic()
    for attempt in attempts:
        site.start("copy", attempt)
    assert [site.wait(attempt).code for attempt in attempts] == [0] * 4
    assert time.monotonic() - began < PATIENCE
