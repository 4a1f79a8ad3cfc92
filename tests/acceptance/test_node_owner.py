"""What the owner of a node says holds: rules by function and database, and approval, on a real federation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from devfederation import PATIENCE, DevFederation, skerry

pytestmark = pytest.mark.acceptance


class Owner:
    """Of the only node of a federation: changes its configuration, and asks and answers by its command line."""

    def __init__(self, federation: DevFederation) -> None:
        self.federation = federation
        [self.path] = federation.folder.glob("node-*/node.yaml")
        self._first = json.loads(self.path.read_text())

    def configure(self, **changes: Any) -> None:
        """The node runs with these keys of its configuration replaced."""
        self.path.write_text(json.dumps({**self._first, **changes}))
        self.restart()

    def restart(self) -> None:
        self.federation.end_node(1)
        self.federation.restart()

    def ask(self, verb: str, *arguments: str) -> Any:
        done = skerry("node", verb, *arguments, "--config", str(self.path), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_for_question(self, function: str) -> dict[str, Any]:
        """Until a run waits for this function."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for row in self.ask("algorithms"):
                if row["function"] == function and row["runs"]:
                    return dict(row)
            time.sleep(0.2)
        raise AssertionError(f"nobody asks for {function}")

    def create(self, image: str, method: str, databases: tuple[str, ...] = (), **kwargs: Any) -> Any:
        return self.federation.client().task.create(
            organizations=self.federation.organization_ids,
            name=method,
            image=image,
            collaboration=self.federation.collaboration_id,
            input_={"method": method, "kwargs": kwargs},
            databases=[{"label": label} for label in databases],
        )

    def refusal(self, task: Any) -> str:
        """The log of a run that was not allowed."""
        self.federation.wait_for_status(task["id"], "not allowed")
        [log] = task.logs()
        return str(log)


@pytest.fixture(scope="module")
def owner(dev, tables) -> Iterator[Owner]:
    with dev("--nodes", "1", "--database", f"default={tables[0]}") as federation:
        yield Owner(federation)


@contextmanager
def waiting(owner: Owner, image: str, method: str, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    task = owner.create(image, method, **kwargs)
    yield task, owner.wait_for_question(method)


def test_rules_by_function_and_database(owner, probe_image) -> None:
    rules = [{"algorithm": probe_image, "functions": ["echo", "read_table"], "databases": []}]
    owner.configure(policies={"allowed_algorithms": rules})
    assert owner.create(probe_image, "echo", value=1).wait(timeout=PATIENCE).results() == [1]
    assert 'the function "noop" with the image' in owner.refusal(owner.create(probe_image, "noop"))
    sentence = owner.refusal(owner.create(probe_image, "echo", ("default",), value=1))
    assert 'does not admit the database "default"' in sentence
    assert "read_table" not in sentence
    assert "(policies.allowed_algorithms)" in owner.refusal(owner.create("skerry/algorithm-base", "echo", value=1))


def test_approve_first(owner, probe_image) -> None:
    rules = [{"algorithm": "skerry-tests/.*", "approve_first": True}]
    owner.configure(policies={"allowed_algorithms": rules}, limits={"parallel_runs": 1})
    with waiting(owner, probe_image, "echo", value=1) as (task, question):
        owner.federation.wait_for_status(task["id"], "initializing")
        assert (question["reference"], question["signed"]) == (probe_image, True)
        assert question["user"] is not None
        # The place of a run that waits is another's.
        with waiting(owner, probe_image, "noop") as (unwanted, _):
            assert owner.ask("refuse", question["ref"], "--function", "noop", "--yes")[0]["verdict"] == "refused"
            assert 'refused the function "noop"' in owner.refusal(unwanted)
        [decided] = owner.ask("approve", question["ref"], "--function", "echo", "--yes")
        assert decided["image"] == question["image"]
        assert task.wait(timeout=PATIENCE).results() == [1]
    owner.restart()
    assert owner.create(probe_image, "echo", value=2).wait(timeout=PATIENCE).results() == [2]
    assert "refused" in owner.refusal(owner.create(probe_image, "noop"))


def test_who_waits_while_the_node_restarts_still_waits(owner, probe_image) -> None:
    rules = [{"algorithm": "skerry-tests/.*", "approve_first": True}]
    owner.configure(policies={"allowed_algorithms": rules})
    with waiting(owner, probe_image, "raises", message="raised") as (task, question):
        owner.restart()
        assert owner.wait_for_question("raises")["image"] == question["image"]
        owner.ask("approve", question["ref"], "--all-functions", "--yes")
        owner.federation.wait_for_status(task["id"], "crashed")


def test_what_leaves_the_node(owner, probe_image) -> None:
    share = {"logs": False, "configuration": True, "columns": True}
    owner.configure(share=share, policies={"allowed_algorithms": ["skerry-tests/.*"]}, algorithm_env={"SITE": "north"})
    client, [node] = owner.federation.client(), owner.federation.facts["nodes"]
    end = time.monotonic() + PATIENCE
    while not (rows := client.request(f"node/{node['id']}")["config"]):
        assert time.monotonic() < end, "the node shares nothing"
        time.sleep(0.1)
    shared = {(row["key"], row["value"]) for row in rows}
    assert {("allowed_algorithms", "skerry-tests/.*"), ("database_labels", "default")} <= shared
    assert {("columns_default", "age"), ("columns_default", "height"), ("db_type_default", "csv")} <= shared
    task = owner.create(probe_image, "raises", message="a patient's name")
    owner.federation.wait_for_status(task["id"], "crashed")
    [log] = task.logs()
    assert "does not give out what algorithms write" in log
    assert "patient" not in log
    [seen] = owner.create(probe_image, "look_around", targets=[], names=[]).wait(timeout=PATIENCE).results()
    assert "SITE" in seen["environment"]
