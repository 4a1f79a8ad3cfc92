"""Point 5: a kill of the server or of a node in mid-run loses nothing and starts nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.acceptance


def create(federation, image, method, organizations, /, **kwargs):
    return federation.client().task.create(
        organizations=organizations,
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": kwargs},
    )


@pytest.fixture
def own_federation(dev):
    """Not the shared one: parts of it die here."""
    with dev("--nodes", "2") as federation:
        yield federation


def test_kill_of_the_server_in_mid_run(own_federation, probe_image, engine_starts) -> None:
    federation = own_federation
    task = create(federation, probe_image, "sleep", federation.organization_ids, seconds=10)
    federation.wait_for_status(task["id"], "active")
    os.kill(federation.server_pid, signal.SIGKILL)
    federation.restart()
    results = task.wait(timeout=120).results()
    assert len(results) == 2
    assert engine_starts(federation) == 2


def test_kill_of_a_node_in_mid_run(own_federation, probe_image, engine_starts) -> None:
    federation = own_federation
    task = create(federation, probe_image, "sleep", federation.organization_ids[:1], seconds=6)
    federation.wait_for_status(task["id"], "active")
    os.kill(federation.node_pids[0], signal.SIGKILL)
    federation.restart()
    [result] = task.wait(timeout=120).results()
    assert result["ended"] - result["started"] >= 6
    assert engine_starts(federation) == 1


def test_kill_of_a_node_whose_container_ends_meanwhile(own_federation, probe_image, engine_starts) -> None:
    federation = own_federation
    task = create(federation, probe_image, "sleep", federation.organization_ids[:1], seconds=8)
    federation.wait_for_status(task["id"], "active")
    os.kill(federation.node_pids[0], signal.SIGKILL)
    federation.wait_for_containers_to_exit()
    federation.restart()
    assert len(task.wait(timeout=120).results()) == 1
    assert engine_starts(federation) == 1


def test_kill_of_a_node_under_a_central_function(own_federation, probe_image, engine_starts) -> None:
    """The container goes on calling its gate, which comes back with the node."""
    federation = own_federation
    first, second = federation.organization_ids
    task = create(
        federation,
        probe_image,
        "children",
        [first],
        method="sleep",
        kwargs={"seconds": 5},
        organizations=[second],
    )
    federation.wait_for_child(task["id"], "active")
    os.kill(federation.node_pids[0], signal.SIGKILL)
    federation.restart()
    [[child]] = task.wait(timeout=120).results()
    assert child["ended"] - child["started"] >= 5
    assert engine_starts(federation) == 2


def containers_of(federation, number: int) -> list[str]:
    """Also the holders of their namespaces."""
    node = federation.engine_filters()[number]
    return subprocess.run(["docker", "ps", "-q", *node], capture_output=True, text=True, check=True).stdout.split()


def test_a_machine_that_went_down_and_a_record_that_was_damaged(own_federation, probe_image, engine_starts) -> None:
    """Both runs end, each for its own reason, and neither is started again."""
    federation = own_federation
    task = create(federation, probe_image, "sleep", federation.organization_ids, seconds=300)
    federation.wait_for_status(task["id"], "active")
    for pid in federation.node_pids:
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["docker", "kill", *containers_of(federation, 0)], capture_output=True, check=True)
    [entry] = (federation.folder / "node-2" / "state" / "runs").glob("*/entry.json")
    entry.write_bytes(entry.read_bytes()[:200])
    federation.restart()
    first, second = task.wait(timeout=120).runs()
    assert (first["status"], second["status"]) == ("crashed", "unknown error")
    assert "ended by signal 9" in first["log"]
    assert "damaged" in second["log"]
    assert engine_starts(federation) == 2
    assert not list((federation.folder / "node-2" / "state" / "runs").iterdir())
