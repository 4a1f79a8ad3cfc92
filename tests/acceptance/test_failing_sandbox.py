"""A node whose sandbox does not hold takes no runs, and says why; ``skerry node check`` says the same."""

from __future__ import annotations

import json
import time
import uuid

import pytest
from devfederation import skerry
from walks import below

from skerry.errors import WaitTimeout

pytestmark = pytest.mark.acceptance
PATIENCE = 120.0
FAILING = {"probe_image": "skerry/algorithm-base", "preflight_seconds": 10}
SAYS = "node-1 takes no runs until its sandbox holds: the probe image can't be run"


def wait_until_told(federation, reason: str) -> None:
    end = time.monotonic() + PATIENCE
    while [node["refuses"] for node in federation.client().node.list()["data"]] != [reason]:
        assert time.monotonic() < end, f"nobody is told of {reason}"
        time.sleep(0.1)


def create(federation, image: str):
    return federation.client().task.create(
        organizations=federation.organization_ids,
        name="noop",
        image=image,
        collaboration=federation.collaboration_id,
        input_={"method": "noop"},
    )


def test_a_node_that_can_not_try_its_sandbox(dev, probe_image, tmp_path) -> None:
    """The base image answers nothing: it stands for a sandbox that does not hold."""
    with dev("--nodes", "1") as federation:
        [config] = below(federation.folder, "node.yaml")
        changed = json.loads(config.read_text())
        changed["docker"] = {**changed.get("docker", {}), **FAILING}
        config.write_text(json.dumps(changed))
        federation.end_node(1)
        again = skerry("dev", "up", "--name", federation.name, "--nodes", "1")
        assert again.returncode == 1
        assert SAYS in again.stderr
        task = create(federation, probe_image)
        federation.wait_for_line("This node takes no runs until its sandbox holds")
        run = federation.client().request("run", params={"task_id": task["id"]})["data"]
        assert [one["status"] for one in run] == ["pending"]
        wait_until_told(federation, "sandbox")
        with pytest.raises(WaitTimeout, match=r"its sandbox does not hold .*: the node of organization 1"):
            task.wait(timeout=1)
        checked = skerry("node", "check", "--config", str(config))
        assert checked.returncode == 1
        assert "the probe image can't be run" in " ".join(checked.stdout.split())


def test_a_federation_whose_sandbox_does_not_hold_does_not_come_up(engine, tmp_path) -> None:
    settings, name = tmp_path / "settings.json", f"test-{uuid.uuid4().hex[:8]}"
    settings.write_text(json.dumps({"docker": FAILING}))
    up = skerry("dev", "up", "--name", name, "--nodes", "1", "--node-settings", str(settings))
    assert up.returncode == 1
    assert SAYS in up.stderr
    assert "cleaning up" in up.stderr
    assert skerry("dev", "status", "--name", name).returncode == 1


def test_a_node_whose_sandbox_holds(dev, probe_image) -> None:
    with dev("--nodes", "1") as federation:
        assert create(federation, probe_image).wait(timeout=PATIENCE).results() == [{}]
        federation.wait_for_line("The sandbox holds")
        [config] = below(federation.folder, "node.yaml")
        checked = skerry("node", "check", "--probes", "--config", str(config))
        assert checked.returncode == 0, checked.stdout
        assert "the sandbox holds" in " ".join(checked.stdout.split())
        assert "use-gate" in checked.stdout
