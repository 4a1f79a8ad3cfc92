"""Keys that are replaced, confirmed and lost, and people who are shut out, while real tasks are under way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from devfederation import PATIENCE, DevFederation, skerry

pytestmark = pytest.mark.acceptance
LONG = 3600


def until(what: str, done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@dataclass
class Keyholders:
    """Organizations 1 and 2, each with its node; each has a user who may replace its keys."""

    federation: DevFederation
    image: str
    connection: Path

    def key_file(self, number: int) -> Path:
        return Path(self.federation.facts["organizations"][number - 1]["private_key_file"])

    def home(self, number: int) -> Path:
        return self.federation.folder / f"node-{number}"

    def config(self, number: int) -> str:
        return str(self.home(number) / "node.yaml")

    def pins(self, number: int) -> Path:
        [path] = (self.home(number) / "state").rglob("pins.json")
        return path

    def key(self, number: int, verb: str, *arguments: object) -> str:
        """``skerry key``, by the organization's own user."""
        who = ("root", "researcher-2")[number - 1]
        login = ("--connection", str(self.connection), "--as", who)
        return said(skerry("key", verb, *map(str, arguments), *login))

    def fingerprint(self, number: int) -> str:
        return said(skerry("key", "fingerprint", str(self.key_file(number)))).strip()

    def rotate(self, number: int) -> None:
        before = self.fingerprint(number)
        self.key(number, "rotate", self.key_file(number))
        self.key_file(number).with_name(f"{self.key_file(number).name}.old").unlink()
        assert self.fingerprint(number) != before

    def stop_node(self, number: int) -> None:
        os.kill(self.federation.node_pids[number - 1], signal.SIGTERM)
        until("the node does not end", lambda: not (self.home(number) / "state" / "ready").exists())

    def restart_node(self, number: int) -> None:
        """As after a rotation: it reads the organization's new file."""
        self.stop_node(number)
        self.federation.restart()

    def configure(self, number: int, **changes: Any) -> None:
        path = Path(self.config(number))
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        self.restart_node(number)

    def create(self, numbers: tuple[int, ...], method: str, arguments: dict[str, Any], *, user: int = 0) -> Any:
        ids = self.federation.organization_ids
        return self.federation.client(user).task.create(
            organizations=[ids[number - 1] for number in numbers],
            name=method,
            image=self.image,
            collaboration=self.federation.collaboration_id,
            input_={"method": method, "kwargs": arguments},
        )

    def echo(self, *numbers: int, value: str) -> Any:
        return self.create(numbers, "echo", {"value": value})

    def children(self, *, user: int = 0) -> Any:
        """At organization 1, with a child task at organization 2 that waits for :meth:`let_go`."""
        inner = {"method": "wait_for_file", "kwargs": {"name": "go", "seconds": LONG}}
        arguments = {**inner, "organizations": self.federation.organization_ids[1:2]}
        return self.create((1,), "children", arguments, user=user)

    def waiting(self, *numbers: int) -> Any:
        """A task whose runs go on until :meth:`let_go`."""
        task = self.create(numbers, "wait_for_file", {"name": "go", "seconds": LONG})
        self.federation.wait_for_status(task["id"], "active")
        return task

    def let_go(self, task: Any) -> None:
        for number in (1, 2):
            for folder in (self.home(number) / "state" / "jobs" / str(task["id"])).glob("*"):
                (folder / "go").touch()

    def results(self, task: Any) -> Any:
        """As somebody reads them who comes later, with the organization's present key file."""
        client = self.federation.client()
        return client.task.get(task["id"]).wait(timeout=PATIENCE).results()

    def refusal(self, task: Any) -> str:
        self.federation.wait_for_status(task["id"], "not allowed")
        [log] = self.federation.client().task.get(task["id"]).logs()
        return str(log)

    def journal(self, number: int) -> list[dict[str, Any]]:
        told = said(skerry("node", "audit", "--config", self.config(number), "--json"))
        return [json.loads(line) for line in told.splitlines()]


def said(done: Any) -> str:
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def holders(dev, probe_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyholders]:
    with dev("--nodes", "2") as federation:
        connection = tmp_path_factory.mktemp("connection") / "federation.json"
        connection.write_text(json.dumps(federation.facts))
        client = federation.client(encryption=False)
        roles = {one["name"]: one["id"] for one in client.request("role")["data"]}
        [user] = client.request("user", params={"username": "researcher-2"})["data"]
        both = [roles["Researcher"], roles["Organization Admin"]]
        client.request(f"user/{user['id']}", json={"roles": both}, method="patch")
        yield Keyholders(federation, probe_image, connection)


def test_keys_of_both_sides_are_replaced_under_a_running_job(holders: Keyholders) -> None:
    """A central function at one organization, its child at the other: both get new keys and nodes meanwhile."""
    task = holders.children()
    holders.federation.wait_for_child(task["id"], "active")
    for number in (1, 2):
        holders.rotate(number)
        holders.restart_node(number)
    holders.federation.wait_for_status(task["id"], "active")
    holders.let_go(task)
    assert holders.results(task) == [[{"seen": True}]]
    assert holders.results(holders.echo(1, 2, value="with new keys")) == ["with new keys"] * 2


def test_a_node_that_was_away_follows_all_that_it_missed(holders: Keyholders) -> None:
    holders.echo(2, value="before").wait(timeout=PATIENCE)
    holders.stop_node(2)
    holders.rotate(1)
    holders.rotate(1)
    task = holders.echo(2, value="from the third keys")
    holders.federation.restart()
    assert holders.results(task) == ["from the third keys"]
    holders.restart_node(1)


def test_the_nodes_key_to_the_server_is_replaced_under_a_run(holders: Keyholders) -> None:
    task = holders.waiting(2)
    before = (holders.home(2) / "api-key").read_text()
    said(skerry("node", "rotate-key", "--config", holders.config(2)))
    assert (holders.home(2) / "api-key").read_text() != before
    holders.let_go(task)
    assert holders.results(task) == [{"seen": True}]
    assert holders.results(holders.echo(2, value="with the new key")) == ["with the new key"]
