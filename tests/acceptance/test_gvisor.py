"""Runs under gVisor, where a node's owner demands it: the same images, by the same gate."""

from __future__ import annotations

import json
import subprocess

import pytest
from devfederation import ALGORITHMS, build

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def average_image(images) -> str:
    return build(ALGORITHMS / "average", "skerry-tests/average")


@pytest.fixture(scope="module")
def on_gvisor(gvisor, dev, tables, tmp_path_factory):
    """Every run of its two nodes is under gVisor, and may use the gate by TCP as images for vantage6 do."""
    settings = tmp_path_factory.mktemp("gvisor") / "settings.json"
    settings.write_text(json.dumps({"docker": {"runtime": "runsc"}}))
    database = f"default={','.join(map(str, tables[:2]))}"
    with dev("--nodes", "2", "--database", database, "--node-settings", str(settings)) as federation:
        yield federation


def run(federation, image, method, organizations=None, databases=(), /, **kwargs):
    task = federation.client().task.create(
        organizations=organizations or federation.organization_ids[:1],
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        databases=[{"label": label} for label in databases],
        input_={"method": method, "kwargs": kwargs},
    )
    return task.wait(timeout=240).results()


def test_the_main_job(on_gvisor, average_image) -> None:
    """A central function, its child task at each node, their data, and the gate between them."""
    [answer] = run(on_gvisor, average_image, "mean", None, ["default"], column="age")
    ages = [20 + 10 * i + j for i in range(2) for j in range(20)]
    assert answer["mean"] == pytest.approx(sum(ages) / len(ages))


def test_the_container_is_gvisors(on_gvisor, probe_image) -> None:
    """Its own kernel, by what it says of itself and by what the engine says."""
    task = on_gvisor.client().task.create(
        organizations=on_gvisor.organization_ids[:1],
        name="wait",
        image=probe_image,
        collaboration=on_gvisor.collaboration_id,
        input_={"method": "wait_for_file", "kwargs": {"name": "never", "seconds": 600}},
    )
    on_gvisor.wait_for_status(task["id"], "active")
    shown = ["docker", "ps", "-q", "--filter", "label=skerry.kind=algorithm", *on_gvisor.engine_filters()[0]]
    [container] = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    asked = ["docker", "inspect", "-f", "{{.HostConfig.Runtime}}", container]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == "runsc"
    on_gvisor.client().task.kill(task["id"])


def test_nothing_but_its_gate(on_gvisor, probe_image) -> None:
    targets = [["127.0.0.1", on_gvisor.port], ["192.0.2.1", 80]]
    [seen] = run(on_gvisor, probe_image, "look_around", targets=targets, names=["example.org"])
    assert seen["interfaces"] == ["lo"]
    assert seen["reached"] == []
    assert seen["resolved"] == []
    assert not seen["can_write_root"]
    assert seen["can_write_tmp"]
