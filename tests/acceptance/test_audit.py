"""A run's story from request to result, told by server and node; and what happens to who tampers with it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devfederation import PATIENCE, DevFederation, skerry
from walks import below

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def audited(dev, probe_image: str) -> Iterator[tuple[DevFederation, int, int]]:
    """A federation of its own, since it is tampered with, in which one job ran; with the ids of its two tasks."""
    with dev("--nodes", "2") as federation:
        first, second = federation.organization_ids
        task = federation.client().task.create(
            organizations=[first],
            name="children",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={
                "method": "children",
                "kwargs": {"method": "echo", "kwargs": {"value": "told-to-nobody"}, "organizations": [second]},
            },
        )
        assert task.wait(timeout=300).results() == [["told-to-nobody"]]
        [child] = federation.client().request("task", params={"parent_id": task["id"]})["data"]
        for number in (0, 1):
            wait_for_clean(federation, number)
        yield federation, task["id"], child["id"]


def wait_for_clean(federation: DevFederation, number: int) -> None:
    """The result is there before the node has tidied up."""
    end = time.monotonic() + PATIENCE
    while "run.clean" not in {record["action"] for record in story(federation, number)}:
        assert time.monotonic() < end, "the node does not tidy up"
        time.sleep(0.2)


def server_config(federation: DevFederation) -> str:
    [path] = federation.server_folder.glob("*.yaml")
    return str(path)


def node_configs(federation: DevFederation) -> list[str]:
    return sorted(str(path) for path in below(federation.folder, "node.yaml"))


def everything(federation: DevFederation) -> list[str]:
    nodes = [word for path in node_configs(federation) for word in ("--node", path)]
    return ["--server", server_config(federation), *nodes]


def story(federation: DevFederation, number: int) -> list[dict[str, Any]]:
    told = skerry("node", "audit", "--config", node_configs(federation)[number], "--json")
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def test_the_server_tells_the_story(audited) -> None:
    federation, task, child = audited
    exported = skerry("server", "audit", "export", "--config", server_config(federation))
    records = [json.loads(line) for line in exported.stdout.splitlines()]
    assert list(records[-1]) == ["head"]
    for one, asker in ((task, "user"), (child, "run")):
        mine = [record for record in records[:-1] if record["about"].get("task") == one]
        actions = [record["action"] for record in mine if record["action"] != "token.run"]
        assert [action for action in actions if action != "run.change"] == [
            *("task.create", "run.create", "run.initializing", "run.active", "run.completed"),
        ]
        assert mine[0]["actor"]["kind"] == asker
    assert "told-to-nobody" not in exported.stdout


def test_the_nodes_tell_the_story(audited) -> None:
    federation, task, child = audited
    for number, one in enumerate((task, child)):
        mine = [record for record in story(federation, number) if record["about"].get("task") == one]
        actions = [record["action"] for record in mine]
        for before, after in (("run.order", "run.admit"), ("run.admit", "run.start"), ("run.start", "run.started")):
            assert actions.index(before) < actions.index(after)
        for before, after in (("run.started", "run.end"), ("run.end", "run.deliver"), ("run.deliver", "run.delivered")):
            assert actions.index(before) < actions.index(after)
        assert "run.clean" in actions
        details = {record["action"]: record["details"] for record in mine}
        assert details["run.admit"]["signed"] is True
        assert details["run.start"]["image_id"].startswith("sha256:")
        assert details["run.end"]["code"] == 0
        assert "told-to-nobody" not in json.dumps(mine)
    gate = next(r["details"] for r in story(federation, 0) if r["action"] == "run.gate")
    assert gate["children"] == [child]
    assert gate["calls"]["POST /task"] == 1
    text = skerry("node", "audit", "--config", node_configs(federation)[0]).stdout
    assert "node.start" in text
    assert "key.pin" in text


def test_all_of_it_holds_and_each_keeps_the_others_heads(audited) -> None:
    federation, _, _ = audited
    verified = skerry("audit", "verify", *everything(federation))
    assert verified.returncode == 0, verified.stderr
    assert "records hold; 0 heads" not in verified.stdout
    assert len(verified.stdout.splitlines()) == 4


def test_a_flipped_byte_is_found_at_the_node_and_at_the_server(audited, tmp_path: Path) -> None:
    federation, _, _ = audited
    [journal] = below(Path(node_configs(federation)[1]).parent, "audit.jsonl")
    copy = tmp_path / "audit.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    copy.write_bytes(b"".join([*lines[:3], lines[3].replace(b'"action":"', b'"action":"x', 1), *lines[4:]]))
    broken = skerry("audit", "verify", str(copy))
    assert broken.returncode == 1
    assert "line 4: Record 4 of node-" in broken.stderr
    assert "was changed" in broken.stderr
    with sqlite3.connect(below(federation.server_folder, "skerry.sqlite")[0]) as database:
        refused = "UPDATE audit SET actor_id = 99 WHERE action = 'task.create'"
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            database.execute(refused)
        database.execute("DROP TRIGGER audit_update")
        database.execute(refused)
    database.close()
    broken = skerry("audit", "verify", *everything(federation))
    assert broken.returncode == 1
    assert "was changed: its hash does not fit" in broken.stderr
