"""A run that takes longer than its node allows: what its parent, its user and the server's records say of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest
from devfederation import PATIENCE, DevFederation
from walks import below

pytestmark = pytest.mark.acceptance
SECONDS = 4


@pytest.fixture(scope="module")
def hasty(dev) -> Iterator[DevFederation]:
    """Two nodes, of which the second allows few seconds."""
    with dev("--nodes", "2") as federation:
        [path] = federation.folder.glob("node-2*/node.yaml")
        path.write_text(json.dumps({**json.loads(path.read_text()), "limits": {"seconds": SECONDS}}))
        federation.end_node(2)
        federation.restart()
        yield federation


def states(federation: DevFederation) -> dict[int, str]:
    """Of all runs, as they lie in the server's database."""
    with sqlite3.connect(below(federation.server_folder, "skerry.sqlite")[0]) as database:
        return {int(run): str(state).lower() for run, state in database.execute("SELECT id, state FROM run")}


def test_a_child_that_takes_too_long(hasty, probe_image) -> None:
    client, (first, second) = hasty.client(), hasty.organization_ids
    asked = {"method": "sleep", "kwargs": {"seconds": PATIENCE}, "organizations": [second]}
    task = client.task.create(
        organizations=[first],
        name="too long",
        image=probe_image,
        collaboration=hasty.collaboration_id,
        input_={"method": "children", "kwargs": asked},
    )
    [parent] = task.wait(timeout=PATIENCE, progress=False).runs()
    assert parent["status"] == "crashed"
    assert f"longer than this node allows ({SECONDS} s)" in parent["log"]
    [child] = client.request("task", params={"parent_id": task["id"]})["data"]
    [run] = client.request("run", params={"task_id": child["id"]})["data"]
    assert (run["status"], run["reason"]) == ("failed", "It took longer than its node allows.")
    assert {one: state for one, state in states(hasty).items() if one == run["id"]} == {run["id"]: "timed_out"}
