"""The Docker launcher's sandbox, on a real engine: what holds inside, and what is left outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from skerry.contract import GATE_PORT
from skerry_node import areas
from skerry_node.config import DockerSettings, Limits
from skerry_node.jobs import JobFolders
from skerry_node.launchers.docker import DockerLauncher, connect
from skerry_node.launchers.launcher import Attempt, ImageNotFound, LauncherError, Source, Spec, Vanished
from skerry_node.output import BadOutput, open_output
from skerry_node.users import Users, default_base, holder_user

pytestmark = pytest.mark.integration

INSTALLATION = "abcdef012345"
LIMITS = Limits(memory=64 << 20, processes=32, temporary=1 << 20, output=1 << 20)
PATIENCE = 60.0
HOST = os.environ.get("DOCKER_HOST")


@pytest.fixture
def holder_image(images) -> str:
    return "skerry/holder"


@pytest.fixture
def launcher(holder_image) -> Iterator[DockerLauncher]:
    settings = DockerSettings(host=HOST, holder_image=holder_image, holder_pool=1)
    made = DockerLauncher(settings, LIMITS, INSTALLATION, "integration")
    yield made
    for found in made.list():
        made.remove(found.attempt)
    made.close()
    assert containers() == []


def containers(kind: str | None = None) -> list[str]:
    filters = ["--filter", f"label=skerry.installation={INSTALLATION}"]
    filters += ["--filter", f"label=skerry.kind={kind}"] if kind else []
    return subprocess.run(["docker", "ps", "-aq", *filters], capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def jobs(tmp_path) -> Iterator[JobFolders]:
    made = JobFolders(tmp_path / "jobs", LIMITS.temporary, Users(70000, []))
    yield made
    for job in made.held():
        made.remove(job)


@pytest.fixture
def image(images) -> Iterator:
    """Makes images whose command is a shell script of busybox."""
    made = []

    def make(script: str, *lines: str) -> str:
        name = f"skerry-tests/node-{len(made)}"
        command = json.dumps(["/busybox", "sh", "-c", script])
        dockerfile = "\n".join(["FROM skerry/holder", *lines, "ENTRYPOINT []", f"CMD {command}", ""])
        build = ["docker", "build", "-q", "-t", name, "-"]
        subprocess.run(build, input=dockerfile.encode(), check=True, capture_output=True)
        made.append(name)
        return name

    yield make
    if made:
        subprocess.run(["docker", "rmi", "-f", *made], check=True, capture_output=True)


@pytest.fixture
def start(launcher, jobs, tmp_path) -> Iterator:
    """Starts an image as a run; its folder. ``before``: is done when all is prepared."""
    made: list[Path] = []
    listeners: list[socket.socket] = []

    def start(name: str, run: int = 1, sources: tuple[Source, ...] = (), before=lambda _: None) -> Spec:
        image, user, data = launcher.resolve(name), 70000 + run, tmp_path / f"data-{run}"
        areas.make(data, LIMITS.output, mode=0o755, user=None, group=None)
        made.append(data)
        groups = (jobs.group(5),)
        spec = Spec(Attempt(run, 1), 5, image, data, jobs.make(5, image), sources, user, groups)
        spec.task_folder.mkdir(mode=0o700)
        (spec.task_folder / "output").touch(mode=0o600)
        for path in (spec.task_folder, spec.task_folder / "output"):
            os.chown(path, user, user)
        listeners.append(launcher.prepare(spec.attempt))
        before(spec)
        launcher.start(spec, {"TASK": f"/mnt/data/{spec.task_folder.name}"})
        return spec

    start.listeners = listeners
    yield start
    for listener in listeners:
        listener.close()
    for data in made:
        areas.remove(data)


def wait_until(seen) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.1)


def end(launcher, spec: Spec):
    ended = launcher.poll(spec.attempt, PATIENCE)
    assert ended is not None
    return ended, launcher.logs(spec.attempt)


def test_the_gate_answers_inside_and_nowhere_else(launcher, image, start) -> None:
    spec = start(image(f"echo hello | /busybox nc 127.0.0.1 {GATE_PORT}; sleep 3"))
    connection, _ = start.listeners[0].accept()
    assert connection.recv(100) == b"hello\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", GATE_PORT), timeout=2)
    connection.send(b"good day\n")
    connection.close()
    _, log = end(launcher, spec)
    assert "good day" in log


def test_nothing_but_loopback(launcher, image, start) -> None:
    ended, log = end(launcher, start(image("ls /sys/class/net; cat /proc/net/route | /busybox wc -l")))
    assert ended.code == 0
    assert log.split() == ["lo", "1"]


def test_databases_are_read_only(launcher, image, start, tmp_path) -> None:
    table, folder = tmp_path / "a.csv", tmp_path / "scans"
    table.write_text("a,b\n")
    folder.mkdir(mode=0o755)
    (folder / "one").write_text("1\n")
    script = """exec 2>&1; cd /mnt/databases; /busybox cat default/a.csv scans/one
        echo x >> default/a.csv && echo written; echo x > scans/two && echo written; /busybox ls"""
    sources = (Source("default", table, "csv"), Source("scans", folder, "folder"))
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o001)
    _, log = end(launcher, start(image(script), sources=sources))
    assert "a,b" in log
    assert "written" not in log
    assert table.read_text() == "a,b\n"
    assert log.split()[-2:] == ["default", "scans"]


def test_runs_of_a_job_share_one_folder_and_others_do_not(launcher, image, start, jobs) -> None:
    shared = image("f=/mnt/tmp/seen; if [ -e $f ]; then /busybox cat $f; else echo first > $f; fi; /busybox id -u")
    _, first = end(launcher, start(shared, run=1))
    _, second = end(launcher, start(shared, run=2))
    assert first.split() == ["70001"]
    assert second.split() == ["first", "70002"]
    assert jobs.held() == [5]
    jobs.remove(5)
    assert jobs.held() == []


def test_disks_are_bounded(launcher, image, start) -> None:
    write = '/busybox dd if=/dev/zero of=$f bs=64k count=2000 && echo "all of $f"'
    script = f"for f in $TASK/output /tmp/x /mnt/tmp/x /dev/shm/x; do {write}; done"
    _, log = end(launcher, start(image(script)))
    assert "all of" not in log


def test_no_program_can_be_planted(launcher, image, start) -> None:
    script = "for d in /tmp /mnt/tmp $TASK; do /busybox cp /busybox $d/b; $d/b true && echo ran; done; echo end"
    _, log = end(launcher, start(image(script)))
    assert "ran" not in log
    assert "end" in log.split()


def test_memory(launcher, image, start) -> None:
    ended, _ = end(launcher, start(image("x=a; while true; do x=$x$x; done")))
    assert ended.reason is not None
    assert "more memory than this node allows (64 MiB)" in ended.reason


def test_processes(launcher, image, start) -> None:
    script = "i=0; while [ $i -lt 60 ]; do /busybox sleep 5 & i=$((i+1)); done; echo all were made"
    _, log = end(launcher, start(image(script)))
    assert "all were made" not in log


def test_no_rights(launcher, image, start) -> None:
    script = "/busybox grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; echo x > /x && echo written"
    _, log = end(launcher, start(image(script, "USER root")))
    status = dict(line.split(":\t") for line in log.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "written" not in log


def test_what_an_image_declares(launcher, image, start) -> None:
    """A volume is bounded memory, not the engine's disk; a health check is not run; ports are known."""
    name = image(
        "/busybox grep ' /data ' /proc/mounts; sleep 1",
        "VOLUME /data",
        "EXPOSE 9000",
        "HEALTHCHECK --interval=1s CMD /busybox touch /mnt/tmp/checked",
    )
    spec = start(name)
    _, log = end(launcher, spec)
    assert log.startswith("tmpfs /data tmpfs rw,nosuid,nodev,noexec")
    assert spec.image.ports == (9000,)
    assert list(spec.temporary.iterdir()) == []
    volumes = subprocess.run(
        ["docker", "inspect", "-f", "{{len .Mounts}}", *containers("algorithm")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert volumes.stdout.strip() == "3"


PLANTED = {
    "link": "/busybox ln -sf /etc/passwd $TASK/output",
    "folder": "/busybox rm $TASK/output; /busybox mkdir $TASK/output",
    "pipe": "/busybox rm $TASK/output; /busybox mkfifo $TASK/output",
    "sparse": "/busybox dd if=/dev/zero of=$TASK/output bs=1 count=0 seek=2000000; /busybox ls -l $TASK",
    "nothing": "/busybox rm -r $TASK",
    "device": "/busybox rm $TASK/output; /busybox mknod $TASK/output c 1 5; /busybox mknod $TASK/output b 8 0",
    "socket": "/busybox rm $TASK/output; /busybox timeout 1 /busybox nc -lU $TASK/output",
    "a link to the folder": "/busybox rm $TASK/output; /busybox ln -s . $TASK/output",
    "a link to a database": "/busybox ln -sf /mnt/databases $TASK/output",
    "a link that loops": "/busybox ln -sf output $TASK/output",
    "an endless one": "/busybox ln -sf /dev/zero $TASK/output",
    "closed": "echo x > $TASK/output; /busybox chmod 0 $TASK/output; /busybox ln $TASK/output $TASK/other",
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_as_a_result_is_not_read(launcher, image, start, what) -> None:
    spec = start(image(PLANTED[what]))
    end(launcher, spec)
    with pytest.raises(BadOutput):
        open_output(spec.task_folder, owner=spec.user, limit=LIMITS.output)


def test_a_result_that_is_swapped_until_the_end(launcher, image, start) -> None:
    """What still swaps it when the algorithm ends, ends with it: the node reads the run's own file, or nothing."""
    swap = "/busybox ln -sf /etc/passwd $TASK/o; /busybox mv -f $TASK/o $TASK/output"
    back = "echo mine > $TASK/p; /busybox mv -f $TASK/p $TASK/output"
    spec = start(image(f"(while true; do {swap}; {back}; done) & /busybox sleep 1"))
    ended, _ = end(launcher, spec)
    assert ended.code == 0
    for _ in range(200):
        try:
            output = open_output(spec.task_folder, owner=spec.user, limit=LIMITS.output)
        except BadOutput:
            continue
        with os.fdopen(output.descriptor, "rb") as file:
            assert file.read() in {b"mine\n", b""}


def test_an_owner_can_not_be_forged(launcher, image, start) -> None:
    """Every run is another user, and none may give a file away."""
    spec = start(
        image("/busybox chown 0 $TASK/output && echo given; /busybox chmod 4755 $TASK/output; echo x > $TASK/output")
    )
    _, log = end(launcher, spec)
    assert "given" not in log
    with pytest.raises(BadOutput, match="its own file"):
        open_output(spec.task_folder, owner=spec.user + 1, limit=LIMITS.output)


def namespace(container: str) -> str:
    """Of a running container."""
    process = engine_says("{{.State.Pid}}", container)
    return str(Path(f"/proc/{process}/ns/net").readlink())


def engine_says(what: str, container: str) -> str:
    asked = subprocess.run(["docker", "inspect", "-f", what, container], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def start_three(launcher, image, start) -> tuple[list[str], list[str]]:
    """Their namespaces, and the holders by which they came into them."""
    namespaces, holders = [], []
    for run in (1, 2, 3):
        spec = start(image("sleep 1000"), run=run)
        container = engine_says("{{.Id}}", launcher._name(spec.attempt))
        namespaces.append(namespace(container))
        holders.append(engine_says("{{.HostConfig.NetworkMode}}", container).removeprefix("container:"))
    return namespaces, holders


def test_a_holder_serves_many_runs_and_a_namespace_one(launcher, image, start, monkeypatch) -> None:
    monkeypatch.setattr("skerry_node.holders._PATIENCE", 30)
    namespaces, holders = start_three(launcher, image, start)
    assert len(set(namespaces)) == 3
    assert len(set(holders)) < 3
    holder = launcher._holders.take()
    holder.listener.close()
    assert namespace(holder.id) not in namespaces
    launcher._holders.discard(holder)


def test_holders_that_only_a_rush_has_needed_go_again(launcher, monkeypatch) -> None:
    monkeypatch.setattr("skerry_node.holders._REST", 0.5)
    taken = [launcher._holders.take() for _ in range(3)]
    for holder in taken:
        holder.listener.close()
        launcher._holders.give_back(holder)
    wait_until(lambda: len(containers("holder")) == 1)
    holder = launcher._holders.take()
    assert holder.stands
    holder.listener.close()
    launcher._holders.give_back(holder)


def test_a_holder_that_could_not_be_removed_is_removed_later(launcher, monkeypatch) -> None:
    api = launcher._api
    remove, tried = api.remove_container, []

    def break_off_once(*args, **kwargs) -> None:
        tried.append(args)
        if len(tried) < 3:
            raise requests.ConnectionError("the engine went away")
        remove(*args, **kwargs)

    monkeypatch.setattr(api, "remove_container", break_off_once)
    attempt = Attempt(1, 1)
    launcher.prepare(attempt).close()
    held = launcher._prepared[attempt].id
    for _ in range(2):
        with contextlib.suppress(LauncherError):
            launcher.remove(attempt)
    launcher.remove(attempt)
    wait_until(lambda: held[:12] not in containers("holder"))
    assert len(tried) > 3


def test_runs_of_one_holder_do_not_meet(launcher, image, start) -> None:
    start(image("exec /busybox nc -ll -p 80 -e /busybox echo met"), run=1)
    spec = start(image("/busybox nc -w 3 127.0.0.1 80 </dev/null; /busybox nc -w 1 -l -p 80; echo listened"), run=2)
    ended, log = end(launcher, spec)
    assert ended.code == 0
    assert "listened" in log
    assert "met" not in log


class TestHoldersThatStay:
    """As on a machine that gives user namespaces to root alone."""

    @pytest.fixture
    def holder_image(self, images) -> str:
        name = "skerry-tests/holder-that-stays"
        dockerfile = b'FROM skerry/holder\nENTRYPOINT ["/busybox", "sleep", "1000"]\n'
        subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=dockerfile, check=True, capture_output=True)
        return name

    def test_each_is_replaced(self, launcher, image, start) -> None:
        namespaces, holders = start_three(launcher, image, start)
        assert len(set(namespaces)) == len(set(holders)) == 3


def test_a_holder_has_no_capability_and_may_make_nothing_but_namespaces(launcher) -> None:
    """Nor do the rights in its user namespace go beyond it, or beyond these two calls."""
    holder = launcher._holders.take()
    holder.listener.close()
    assert engine_says("{{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}", holder.id) == "[ALL] []"
    process = Path(f"/proc/{engine_says('{{.State.Pid}}', holder.id)}")
    assert process.stat().st_uid == holder_user(default_base(INSTALLATION))
    for words in ("unshare -m /busybox true", "unshare -p /busybox true", "mount -t tmpfs x /proc", "chroot /proc"):
        within = ["/busybox", "unshare", "-U", "-r", "/busybox", *words.split()]
        tried = subprocess.run(["docker", "exec", holder.id, *within], capture_output=True, text=True, check=False)
        assert re.search("not permitted|permission denied", tried.stderr)
    launcher._holders.discard(holder)


@pytest.mark.parametrize("how", [["kill"], ["rm", "-f"]])
def test_a_holder_that_dies_before_the_start_is_replaced(launcher, image, start, how) -> None:
    """Nothing was started in it, whether the engine still knows it or not: the attempt is prepared once more."""
    name = image(f"echo hello | /busybox nc 127.0.0.1 {GATE_PORT}")

    def lose_the_first_holder(spec: Spec) -> None:
        subprocess.run(["docker", *how, launcher._prepared[spec.attempt].id], check=True, capture_output=True)
        with pytest.raises(Vanished, match="before the algorithm was started"):
            launcher.start(spec, {})
        launcher.remove(spec.attempt)
        assert containers("algorithm") == []
        start.listeners.pop().close()
        start.listeners.append(launcher.prepare(spec.attempt))

    spec = start(name, before=lose_the_first_holder)
    connection, _ = start.listeners[0].accept()
    with connection:
        assert connection.recv(100) == b"hello\n"
    assert end(launcher, spec)[0].code == 0


def test_localhost_has_a_name_and_nothing_else(launcher, image, start) -> None:
    script = "/busybox cat /etc/hosts /etc/resolv.conf; { echo x >>/etc/hosts && echo written; } 2>/dev/null; true"
    ended, log = end(launcher, start(image(script)))
    assert (ended.code, log.split()[:4]) == (0, ["127.0.0.1", "localhost", "::1", "localhost"])
    assert "nameserver" not in log
    assert "written" not in log


def test_holders_that_a_killed_node_left_are_removed(launcher, image, start) -> None:
    """Those that no run stands in; the one of a running container stays."""
    spec = start(image("sleep 1000"))
    [running] = containers("algorithm")
    left = launcher._holders._make()
    left.listener.close()
    second = DockerLauncher(DockerSettings(host=HOST, holder_pool=0), LIMITS, INSTALLATION, "integration")
    start.listeners[0].close()
    second.attach(spec.attempt).close()
    second.close()
    assert left.id[:12] not in containers("holder")
    assert running in containers("algorithm")


def test_many_namespaces_at_once(launcher) -> None:
    taken: list[socket.socket] = []
    threads = [threading.Thread(target=lambda n=n: taken.append(launcher.prepare(Attempt(n, 1)))) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [listener.getsockname() for listener in taken] == [("127.0.0.1", GATE_PORT)] * 6
    for number, listener in enumerate(taken, start=1):
        listener.close()
        launcher.remove(Attempt(number, 1))


def test_images_by_id_and_policy(launcher, image) -> None:
    name = image("true")
    found = launcher.resolve(name)
    assert launcher.resolve(f"{name}@{found.id}").id == found.id
    with pytest.raises(ImageNotFound):
        launcher.resolve(f"{name}@sha256:{'0' * 64}")
    with pytest.raises(ImageNotFound, match="not the name of an image"):
        launcher.resolve("--privileged")


def test_an_owner_who_pulls_nothing(images) -> None:
    launcher = DockerLauncher(
        DockerSettings(host=HOST, pull="never", holder_pool=0), LIMITS, INSTALLATION, "integration"
    )
    try:
        with pytest.raises(ImageNotFound, match="pulls none"):
            launcher.resolve("skerry-tests/nobody-has-this")
    finally:
        launcher.close()


def test_without_the_holders_image(engine) -> None:
    settings = DockerSettings(host=HOST, holder_image="skerry-tests/no-holder", holder_pool=0)
    launcher = DockerLauncher(settings, LIMITS, INSTALLATION, "integration")
    try:
        with pytest.raises(LauncherError, match="make images"):
            launcher.prepare(Attempt(1, 1))
    finally:
        launcher.close()


def test_without_an_engine() -> None:
    """By TCP: docker's own client leaves a unix socket open that it could not connect."""
    with pytest.raises(LauncherError, match="No Docker engine answers at tcp"):
        connect("tcp://127.0.0.1:1")
