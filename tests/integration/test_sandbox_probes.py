"""The sandbox tried from inside: every probe of the table, by the path that runs take, and beside Docker's default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.probes import PROBES, Answer
from skerry_node.checks import try_sandbox
from skerry_node.config import Config
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.preflight import GVISOR_ANSWERS
from skerry_node.sandbox import GVISOR

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

LET_THROUGH_BY_DEFAULT = {
    "user-root",
    "become-root",
    "join-groups",
    "new-privileges",
    "capabilities",
    "capability-bounds",
    "chown",
    "chroot",
    "make-device",
    "raw-socket",
    "packet-socket",
    "io_uring_setup",
    "io_setup",
    "ptrace",
    "personality",
    "msgget",
    "mq_open",
    "vsock",
    "netlink-uevent",
    "writable-root",
    "write-root",
    "write-usr",
    "write-etc",
    "write-hosts",
    "write-resolver",
    "execute-tmp",
    "tmp-unbounded",
    "limit-file",
    "limit-memory",
}
"""What our profile adds to the engine's own; the rest of the table the engine refuses too, or the machine lacks it."""


@pytest.fixture(scope="module")
def columns(images) -> dict[str, dict[str, str]]:
    table = [sys.executable, str(ROOT / "bench" / "probe_table.py"), "--json"]
    done = subprocess.run(table, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def test_the_table_is_large_and_its_names_are_its_own() -> None:
    names = [probe.name for probe in PROBES]
    assert len(names) == len(set(names))
    assert len(names) >= 43
    assert {probe.group for probe in PROBES} >= {
        "capability",
        "device",
        "kernel file",
        "system call",
        "limit",
        "network",
    }


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_our_profile(columns, probe) -> None:
    assert columns["skerry"][probe.name] == probe.expected


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_gvisor(gvisor, columns, probe) -> None:
    wanted = GVISOR_ANSWERS[probe.name][0] if probe.name in GVISOR_ANSWERS else probe.expected
    assert columns["skerry on gVisor"][probe.name] == wanted


@pytest.mark.parametrize("name", sorted(LET_THROUGH_BY_DEFAULT))
def test_dockers_default_differs(columns, name) -> None:
    """The control as well: each of these probes can succeed, so that its refusal in our profile means something."""
    assert columns["Docker's default"][name] == Answer.POSSIBLE


def test_no_probe_breaks_anywhere(columns) -> None:
    broken = [(column, name) for column, answers in columns.items() for name in answers if answers[name] == "broken"]
    assert broken == []


@pytest.fixture
def config(images, tmp_path) -> Config:
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    return Config.model_validate(
        {
            "name": "n",
            "server": {"url": "http://127.0.0.1:1"},
            "api_key_file": str(tmp_path / "key"),
            "state_folder": str(tmp_path / "state"),
            "encryption": None,
            "docker": {"host": os.environ.get("DOCKER_HOST")},
        }
    )


def image_id(name: str) -> str:
    shown = subprocess.run(["docker", "inspect", "-f", "{{.Id}}", name], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


RELAXED = [
    ("writable_root", True, {"writable-root"}),
    ("executable_tmp", True, {"execute-tmp"}),
    ("engine_seccomp", True, {"io_uring_setup", "vsock", "personality"}),
    ("open_files", 8192, {"limit-files"}),
]


@pytest.mark.parametrize(("setting", "value", "noticed"), RELAXED)
def test_a_sandbox_that_is_weaker_is_noticed(config, setting, value, noticed) -> None:
    """A relaxation for the probe image itself stands for an engine that forgets a setting."""
    relaxation = {"digest": image_id("skerry/probe"), "setting": setting, "value": value}
    policies = config.policies.model_validate({"relaxations": [relaxation]})
    report = try_sandbox(config.model_copy(update={"policies": policies}))
    found = {name for name, answer in report.answers.items() if answer == Answer.POSSIBLE}
    assert noticed <= found
    assert all(any(f"({name})" in problem.sentence for problem in report.problems) for name in noticed)


def test_a_relaxation_for_another_image_changes_nothing(config) -> None:
    relaxation = {"digest": f"sha256:{'0' * 64}", "setting": "engine_seccomp", "value": True}
    policies = config.policies.model_validate({"relaxations": [relaxation]})
    assert try_sandbox(config.model_copy(update={"policies": policies})).problems == ()


def test_an_image_that_is_no_probe(config) -> None:
    """The namespace holder's image waits for ever; another one's answer is no answer."""
    docker = config.docker.model_copy(update={"probe_image": "skerry/algorithm-base"})
    [problem] = try_sandbox(config.model_copy(update={"docker": docker})).problems
    assert "can't be run" in problem.sentence


def kill_holders_before_starts(monkeypatch, times: int) -> list[str]:
    """Those that are killed by and by."""
    killed: list[str] = []
    start = DockerLauncher.start

    def start_without_holder(launcher, spec, environment) -> None:
        if len(killed) < times:
            killed.append(launcher._prepared[spec.attempt].id)
            launcher._api.kill(killed[-1])
        start(launcher, spec, environment)

    monkeypatch.setattr(DockerLauncher, "start", start_without_holder)
    return killed


def test_a_namespace_that_ends_before_the_probes_are_started(config, monkeypatch) -> None:
    """The probes are tried once more, as a run is; what keeps ending is told."""
    killed = kill_holders_before_starts(monkeypatch, 1)
    assert try_sandbox(config).problems == ()
    assert len(killed) == 1


def test_namespaces_that_keep_ending(config, monkeypatch) -> None:
    killed = kill_holders_before_starts(monkeypatch, 9)
    [problem] = try_sandbox(config).problems
    assert "holder ended before the algorithm was started: " in str(problem)
    assert len(killed) == 2


def test_gvisor_is_demanded_of_an_engine_without_it(config) -> None:
    """Where there is gVisor the name of another runtime stands for it."""
    docker = config.docker.model_copy(update={"runtime": "no-such-runtime"})
    with pytest.raises(Exception, match="knows no runtime of that name"):
        try_sandbox(config.model_copy(update={"docker": docker}))


def test_nothing_of_it_is_left(config) -> None:
    def traces() -> tuple[list[str], list[str]]:
        every = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()
        return sorted(every), sorted(map(str, (config.state_folder / "check").glob("*")))

    before = traces()
    assert try_sandbox(config).problems == ()
    assert traces() == before


def test_gvisors_own_answers_are_few_and_known() -> None:
    assert set(GVISOR_ANSWERS) <= {probe.name for probe in PROBES}
    assert len(GVISOR_ANSWERS) <= 5
    assert GVISOR == "runsc"
