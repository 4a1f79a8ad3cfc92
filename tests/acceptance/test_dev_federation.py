"""``skerry dev``: what it prints, what it leaves behind (nothing), and what it says when it can't."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from devfederation import SKERRY, skerry
from walks import contents

pytestmark = pytest.mark.acceptance


@pytest.fixture
def own_federation(dev):
    """Not the shared one: parts of it die here."""
    with dev("--nodes", "1") as federation:
        yield federation


def test_the_shape_that_scripts_rely_on(federation) -> None:
    facts = federation.facts
    assert set(facts) == {"server", "collaboration", "organizations", "users", "nodes", "server_pid"}
    assert set(facts["server"]) == {"url", "api_path"}
    assert facts["server"]["url"].startswith("http://127.0.0.1:")
    assert facts["collaboration"] == {"id": facts["collaboration"]["id"], "encrypted": True, "accept": "native"}
    assert [set(one) for one in facts["organizations"]] == [{"id", "name", "private_key_file"}] * 3
    assert [set(one) for one in facts["nodes"]] == [{"id", "name", "organization_id", "pid"}] * 3
    assert all(set(one) == {"username", "password", "organization_id"} for one in facts["users"])
    organizations = [one["id"] for one in facts["organizations"]]
    assert facts["users"][0]["organization_id"] == organizations[0]
    assert [one["organization_id"] for one in facts["users"][1:]] == organizations
    assert [one["organization_id"] for one in facts["nodes"]] == organizations


def test_the_first_user_is_root_and_each_organization_has_a_researcher(federation) -> None:
    for number, role in enumerate(["Root", "Researcher", "Researcher", "Researcher"]):
        client = federation.client(number)
        roles = client.request("role", params={"name": role})["data"]
        [user] = client.request("user", params={"username": federation.facts["users"][number]["username"]})["data"]
        assert client.request("role", params={"user_id": user["id"]})["data"] == [
            one for one in roles if one["name"] == role
        ]


def test_each_part_is_a_process_of_its_own(federation) -> None:
    pids = {federation.server_pid, *federation.node_pids}
    assert len(pids) == 4
    assert all(os.getsid(pid) == pid for pid in pids)


def test_its_secrets_are_the_owners_alone(federation) -> None:
    passwords = [user["password"].encode() for user in federation.facts["users"]]
    for path, content in contents(federation.folder):
        if path.is_relative_to(federation.server_folder):
            continue
        if any(password in content for password in passwords) or b"PRIVATE KEY" in content or path.name == "api-key":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_no_secret_is_in_a_command_line(federation) -> None:
    for pid in (federation.server_pid, *federation.node_pids):
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(user["password"].encode() in shown for user in federation.facts["users"])


def test_up_again_changes_nothing(federation) -> None:
    again = skerry("dev", "up", "--name", federation.name, *federation.arguments, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout) == federation.facts
    assert "runs already" in again.stderr


def test_up_with_other_settings_is_refused(federation) -> None:
    other = skerry("dev", "up", "--name", federation.name, "--nodes", "2", "--json")
    assert other.returncode != 0
    assert other.stdout == ""
    assert "other settings" in other.stderr
    assert f"skerry dev down --name {federation.name}" in other.stderr


def test_status_and_logs(federation) -> None:
    status = skerry("dev", "status", "--name", federation.name)
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("online") == 3
    everything = skerry("dev", "status")
    assert f"{federation.name}\n" in everything.stdout
    assert everything.stdout.count("online") >= 3
    logs = skerry("dev", "logs", "--name", federation.name, "node-2")
    assert logs.returncode == 0
    assert logs.stdout
    wrong = skerry("dev", "logs", "--name", federation.name, "node-9")
    assert "node-9" in wrong.stderr
    assert "node-2" in wrong.stderr


def test_status_of_all_federations_where_there_is_none(tmp_path) -> None:
    status = skerry("dev", "status", env={**os.environ, "XDG_STATE_HOME": str(tmp_path)})
    assert (status.returncode, status.stdout) == (0, "")
    assert "there is no federation; start one with: skerry dev up" in status.stderr


def test_status_of_a_part_that_died(own_federation) -> None:
    os.kill(own_federation.node_pids[0], signal.SIGKILL)
    wait_for_end(own_federation.node_pids)
    status = skerry("dev", "status", "--name", own_federation.name)
    assert status.returncode == 1
    assert "DEAD" in status.stdout


def test_down_leaves_nothing_even_when_all_parts_were_killed(dev, probe_image, tables) -> None:
    with dev("--nodes", "2", "--database", f"default={tables[0]}") as federation:
        task = federation.client().task.create(
            organizations=federation.organization_ids,
            name="sleep",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={"method": "sleep", "kwargs": {"seconds": 600}},
        )
        federation.wait_for_status(task["id"], "active")
        assert containers(federation)
        for pid in (federation.server_pid, *federation.node_pids):
            os.kill(pid, signal.SIGKILL)
        assert skerry("dev", "down", "--name", federation.name).returncode == 0
        assert containers(federation) == []
        assert not federation.folder.exists()
        assert str(federation.folder) not in Path("/proc/self/mountinfo").read_text()
        assert mentioning(federation.folder) == []
        again = skerry("dev", "down", "--name", federation.name)
        assert again.returncode == 0
        assert "none" in again.stderr


@pytest.fixture
def cut_short():
    """The name of a federation whose start does not end well; gone afterwards, whatever happened."""
    yield "cut-short"
    assert skerry("dev", "down", "--name", "cut-short").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["starting the server", "starting 2 nodes"])
def test_interrupted_in_the_middle(images, state_home, cut_short, number, step) -> None:
    command = [SKERRY, "dev", "up", "--name", cut_short, "--nodes", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        for line in up.stderr:
            if step in line:
                up.send_signal(number)
                break
        out, err = up.communicate(timeout=60)
    assert up.returncode != 0
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not (state_home / "skerry" / "dev" / cut_short).exists()
    assert mentioning(state_home / "skerry" / "dev" / cut_short) == []


def test_an_up_that_was_killed_is_cleaned_up_by_the_next(images, cut_short) -> None:
    command = [str(SKERRY), "dev", "up", "--name", cut_short, "--nodes", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        for line in up.stderr:
            if "starting 1 nodes" in line:
                up.kill()
                break
        up.communicate(timeout=60)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "interrupted" in again.stderr


def test_a_plain_federation_encrypts_nothing(dev, probe_image) -> None:
    with dev("--nodes", "1", "--plain") as federation:
        assert federation.facts["collaboration"]["encrypted"] is False
        task = federation.client().task.create(
            organizations=federation.organization_ids,
            name="echo",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={"method": "echo", "kwargs": {"value": 7}},
        )
        assert task.wait(timeout=120).results() == [7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "0"], ["--nodes"]),
        (["--name", "../x"], ["--name"]),
        (["--database", "default=/there/is/none.csv"], ["/there/is/none.csv"]),
        (["--accept", "none"], ["--accept"]),
    ],
)
def test_options_that_make_no_sense(arguments, words) -> None:
    up = skerry("dev", "up", *arguments, "--json")
    assert up.returncode != 0
    assert up.stdout == ""
    assert all(word in up.stderr for word in words)
    assert "Traceback" not in up.stderr


def test_no_engine_and_docker_wanted(tmp_path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    up = skerry("dev", "up", "--name", "no-engine", "--launcher", "docker", "--json", env=environment)
    assert up.returncode != 0
    assert "no Docker engine" in up.stderr or "root" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_federation_that_is_not_there() -> None:
    for verb in ("status", "logs"):
        asked = skerry("dev", verb, "--name", "nowhere")
        assert asked.returncode == 1
        assert "nowhere" in asked.stderr
        assert "Traceback" not in asked.stderr


def containers(federation) -> list[str]:
    """Of this federation's nodes: their sandbox is the only one that mounts something of its folder."""
    listed = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()
    if not listed:
        return []
    shown = subprocess.run(["docker", "inspect", *listed], capture_output=True, text=True, check=False).stdout
    return [one["Id"] for one in json.loads(shown) if str(federation.folder) in json.dumps(one["HostConfig"])]


def mentioning(folder: Path) -> list[str]:
    """Processes whose command line names the folder, once those that are just ending have ended."""
    end = time.monotonic() + 10
    while (found := _mentioning(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _mentioning(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


def wait_for_end(pids: list[int]) -> None:
    end = time.monotonic() + 30
    for pid in pids:
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            assert time.monotonic() < end
            time.sleep(0.02)
