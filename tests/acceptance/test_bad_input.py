"""Bad input gets one clear sentence that names what is wrong, the right end, and keeps its log."""

from __future__ import annotations

import re
import sqlite3
import subprocess

import pytest
import requests
from devfederation import skerry
from walks import contents

from skerry import UserClient
from skerry.errors import (
    AuthenticationError,
    InvalidInput,
    KeyFileError,
    NotFound,
    SkerryError,
    TaskFailed,
    WaitTimeout,
)
from skerry.keys import Identity

pytestmark = pytest.mark.acceptance
DEFAULT = [{"label": "default"}]


def create(federation, image, method="noop", on=None, /, databases=None, **kwargs):
    return federation.client().task.create(
        organizations=on or federation.organization_ids[:1],
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": kwargs},
        databases=databases,
    )


def failure(task) -> tuple[str, str, str]:
    """The run's status, its log, and the sentence that the user gets."""
    with pytest.raises(TaskFailed) as caught:
        task.wait(timeout=120).results()
    [run] = caught.value.runs
    assert "Traceback" not in str(caught.value)
    return str(run["status"]), str(run["log"]), str(caught.value)


def test_an_image_that_nobody_has(federation) -> None:
    status, log, text = failure(create(federation, "skerry-tests/there-is-none:1"))
    assert status == "non-existing Docker image"
    assert "skerry-tests/there-is-none:1" in log
    assert "skerry-tests/there-is-none:1" in text


@pytest.fixture(scope="module")
def busybox_image(images) -> str:
    """An image without Python: the namespace holder's."""
    return "skerry/holder"


def test_an_image_without_python(federation, busybox_image, tmp_path) -> None:
    tag = "skerry-tests/no-python"
    (tmp_path / "Dockerfile").write_text(f'FROM {busybox_image}\nENTRYPOINT []\nCMD ["python3", "-c", "pass"]\n')
    subprocess.run(["docker", "build", "-q", "-t", tag, str(tmp_path)], check=True, capture_output=True)
    status, log, _ = failure(create(federation, tag))
    assert status == "start failed"
    assert "python3" in log


def test_an_image_that_exits_at_once(federation, images, tmp_path) -> None:
    tag = "skerry-tests/exits"
    (tmp_path / "Dockerfile").write_text('FROM skerry/algorithm-base\nENTRYPOINT []\nCMD ["python3", "-c", "pass"]\n')
    subprocess.run(["docker", "build", "-q", "-t", tag, str(tmp_path)], check=True, capture_output=True)
    status, log, _ = failure(create(federation, tag))
    assert status == "crashed"
    assert "without" in log


def test_an_algorithm_that_leaves_with_a_code(federation, probe_image) -> None:
    status, log, text = failure(create(federation, probe_image, "exits", code=3))
    assert status == "crashed"
    assert "about to leave" in log
    assert "crashed" in text


def test_an_algorithm_that_writes_garbage(federation, probe_image) -> None:
    """Any bytes are a result to skerry; what can't be read is said to the one who asked, in a sentence."""
    task = create(federation, probe_image, "writes_garbage").wait(timeout=120)
    with pytest.raises(SkerryError, match="JSON"):
        task.results()


@pytest.mark.parametrize("method", ["raises", "refuses"])
def test_an_algorithm_that_raises(federation, probe_image, method) -> None:
    status, log, text = failure(create(federation, probe_image, method, message="the column is empty"))
    assert status == "crashed"
    assert "the column is empty" in log
    assert "the column is empty" in text


@pytest.mark.parametrize(("method", "word"), [("returns_nothing", "nothing"), ("returns_a_set", "JSON")])
def test_an_algorithm_whose_result_can_not_be_json(federation, probe_image, method, word) -> None:
    status, log, _ = failure(create(federation, probe_image, method))
    assert status == "crashed"
    assert word in log


def test_a_function_that_the_image_lacks(federation, probe_image) -> None:
    status, log, _ = failure(create(federation, probe_image, "nope"))
    assert status == "crashed"
    assert "nope" in log


def test_wrong_arguments(federation, probe_image) -> None:
    status, log, _ = failure(create(federation, probe_image, "echo", colour="red"))
    assert status == "crashed"
    assert "colour" in log


def test_more_memory_than_allowed(federation, probe_image) -> None:
    status, log, _ = failure(create(federation, probe_image, "eats_memory", megabytes=20_000))
    assert status in {"failed", "crashed"}
    assert "memory" in log.lower()


def test_a_child_that_fails_is_told_to_its_parent(federation, probe_image) -> None:
    task = create(
        federation,
        probe_image,
        "children",
        method="raises",
        kwargs={"message": "no such patient"},
        organizations=federation.organization_ids[1:2],
    )
    status, log, _ = failure(task)
    assert status == "crashed"
    assert "no such patient" in log


def test_one_failure_does_not_fail_the_siblings(federation, probe_image) -> None:
    """Only the second of three has a patient too young."""
    task = create(federation, probe_image, "refuses_below", federation.organization_ids, databases=DEFAULT, age=30)
    with pytest.raises(TaskFailed) as caught:
        task.wait(timeout=120).results()
    assert [run["status"] for run in caught.value.runs] == ["crashed"]
    assert sorted(run["status"] for run in task.runs()) == ["completed", "completed", "crashed"]


def test_an_unknown_database(federation, probe_image) -> None:
    status, log, _ = failure(create(federation, probe_image, "columns", databases=[{"label": "patients"}]))
    assert status in {"not allowed", "failed"}
    assert "patients" in log
    assert "default" in log, "the sentence names the databases that there are"


def test_unknown_organization_and_collaboration(federation, probe_image) -> None:
    with pytest.raises(SkerryError, match="99999"):
        create(federation, probe_image, "noop", [99999])
    client = federation.client()
    with pytest.raises((NotFound, InvalidInput, SkerryError), match="99999"):
        client.task.create(
            organizations=federation.organization_ids[:1],
            name="x",
            image=probe_image,
            collaboration=99999,
            input_={"method": "noop"},
        )


def test_an_organization_without_a_node(federation, probe_image) -> None:
    client = federation.client()
    organization = client.organization.create(name="island without a node")
    client.collaboration.add_organization(organization["id"], federation.collaboration_id)
    with pytest.raises(SkerryError, match="node") as caught:
        create(federation, probe_image, "noop", [organization["id"]])
    assert "Traceback" not in str(caught.value)
    client.collaboration.remove_organization(organization["id"], federation.collaboration_id)


def test_a_wrong_password(federation) -> None:
    address, port = federation.facts["server"]["url"].rsplit(":", 1)
    with pytest.raises(AuthenticationError, match="log in"):
        UserClient(address, int(port), "/api").authenticate("root", "Wrong-password-1")


def test_a_token_that_is_none(federation) -> None:
    url = f"{federation.facts['server']['url']}/api/task"
    answer = requests.get(url, headers={"Authorization": "Bearer x.y.z"}, timeout=10)
    assert answer.status_code in {401, 422}
    assert isinstance(answer.json()["msg"], str)


def test_a_wrong_key(federation, tmp_path) -> None:
    Identity.generate().save(tmp_path / "other.pem")
    client = federation.client(encryption=False)
    with pytest.raises(SkerryError, match="key"):
        client.setup_encryption(str(tmp_path / "other.pem"))
    with pytest.raises(KeyFileError, match=r"none\.pem"):
        client.setup_encryption(str(tmp_path / "none.pem"))


def test_a_corrupted_result(federation, probe_image) -> None:
    """A bit of the stored ciphertext flips at the server: the client says so and hands nothing on."""
    task = create(federation, probe_image, "echo", value="precious").wait(timeout=120)
    assert task.results() == ["precious"]
    [database] = [
        path for path, content in contents(federation.server_folder) if content.startswith(b"SQLite format 3")
    ]
    with sqlite3.connect(database, timeout=30) as connection:
        flip_last_result(connection)
    with pytest.raises(SkerryError, match=r"altered|decrypt|signature") as caught:
        federation.client().task.get(task["id"]).results()
    assert "precious" not in str(caught.value)


def flip_last_result(connection) -> None:
    """Which table holds the payloads is the server's business: what begins like an envelope of a result is one."""
    columns = [
        (table, column)
        for (table,) in connection.execute("select name from sqlite_master where type='table'").fetchall()
        for (_, column, *_) in connection.execute(f'pragma table_info("{table}")').fetchall()
    ]
    table, column, row, value = max(
        ((table, column, row, value) for table, column in columns for row, value in blobs(connection, table, column)),
        key=lambda found: found[2],
    )
    flipped = value[:-70] + bytes([value[-70] ^ 1]) + value[-69:]
    connection.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (flipped, row))  # noqa: S608


def blobs(connection, table, column):
    rows = connection.execute(f'select rowid, "{column}" from "{table}"').fetchall()  # noqa: S608
    return [(row, value) for row, value in rows if isinstance(value, bytes) and b'"direction":"result"' in value]


def test_a_node_that_is_down(dev, probe_image) -> None:
    """The task waits for it, the waiting user is told, and it runs when the node is back."""
    with dev("--nodes", "2") as federation:
        federation.end_node(2)
        task = create(federation, probe_image, "noop", federation.organization_ids[1:])
        with pytest.raises(WaitTimeout, match="offline"):
            task.wait(timeout=5)
        federation.restart()
        assert task.wait(timeout=120).results() == [{}]


def test_killing_a_task(federation, probe_image) -> None:
    task = create(federation, probe_image, "sleep", seconds=600)
    federation.wait_for_status(task["id"], "active")
    task.kill()
    status, _, _ = failure(task)
    assert status == "killed by user"


@pytest.mark.parametrize(("part", "wrong", "right"), [("node", "launcherr", "launcher"), ("server", "portt", "port")])
def test_a_misspelt_key_in_a_configuration(part, wrong, right, tmp_path) -> None:
    assert skerry(part, "new", str(tmp_path / part)).returncode == 0
    [config] = (tmp_path / part).glob("*.yaml")
    config.write_text(f"{config.read_text()}\n{wrong}: 1\n")
    started = skerry(part, "start", "--config", str(config), timeout=60)
    assert started.returncode != 0
    assert f'"{wrong}"' in started.stderr
    assert re.search(rf"\b{right}\b", started.stderr)
    assert "Traceback" not in started.stderr


@pytest.mark.parametrize("part", ["node", "server"])
def test_a_missing_configuration(part, tmp_path) -> None:
    started = skerry(part, "start", "--config", str(tmp_path / "none.yaml"), timeout=60)
    assert started.returncode != 0
    assert "none.yaml" in started.stderr
    assert "Traceback" not in started.stderr


def test_a_port_in_use(federation, tmp_path) -> None:
    up = skerry("dev", "up", "--name", "port-in-use", "--nodes", "1", "--port", str(federation.port), "--json")
    assert up.returncode != 0
    assert str(federation.port) in up.stderr
    assert up.stdout == ""
    assert "Traceback" not in up.stderr
    assert skerry("dev", "down", "--name", "port-in-use").returncode == 0
