"""Keys that are replaced, confirmed and lost, and people who are shut out, while real tasks are under way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from devfederation import PATIENCE, DevFederation, skerry
from walks import below

from skerry.errors import AuthenticationError, InputError, KeyChanged

pytestmark = pytest.mark.acceptance
LONG = 3600
LONGEST_WAIT = 45
"""Seconds: less than the minute for which the server holds a call back."""


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
        [path] = below(self.home(number) / "state", "pins.json")
        return path

    def key(self, number: int, verb: str, *arguments: object) -> str:
        """``skerry key``, by the organization's own user."""
        return said(skerry("key", verb, *map(str, arguments), *self.login(number)))

    def login(self, number: int) -> tuple[str, ...]:
        return "--connection", str(self.connection), "--as", ("root", "researcher-2")[number - 1]

    def fingerprint(self, number: int) -> str:
        return said(skerry("key", "fingerprint", str(self.key_file(number)))).strip()

    def rotate(self, number: int) -> None:
        before = self.fingerprint(number)
        self.key(number, "rotate", self.key_file(number))
        self.key_file(number).with_name(f"{self.key_file(number).name}.old").unlink()
        assert self.fingerprint(number) != before

    def restart_node(self, number: int) -> None:
        """As after a rotation: it reads the organization's new file."""
        self.federation.end_node(number)
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

    def results(self, task: Any, *, user: int = 0) -> Any:
        """As somebody reads them who comes later, with the organization's present key file."""
        client = self.federation.client(user)
        return client.task.get(task["id"]).wait(timeout=PATIENCE).results()

    def refusal(self, task: Any, *, user: int = 0) -> str:
        self.federation.wait_for_status(task["id"], "not allowed")
        [log] = self.federation.client(user).task.get(task["id"]).logs()
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
    holders.federation.end_node(2)
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


def test_only_confirmed_keys(holders: Keyholders) -> None:
    """Also of an organization whose keys the node has seen before; a confirmation goes over to the successor."""
    policies = json.loads(Path(holders.config(2)).read_text())["policies"]
    holders.configure(2, policies={**policies, "require_confirmed_keys": True})
    try:
        assert "skerry key confirm" in holders.refusal(holders.echo(2, value="not yet"))
        confirm(holders, 2, of=1)
        assert holders.results(holders.echo(2, value="confirmed")) == ["confirmed"]
        holders.rotate(1)
        assert holders.results(holders.echo(2, value="by the successor")) == ["by the successor"]
        holders.restart_node(1)
    finally:
        holders.configure(2, policies=policies)


def confirm(holders: Keyholders, number: int, *, of: int) -> None:
    """By the owner of a node, with the fingerprint as it is read out by telephone."""
    organization = holders.federation.organization_ids[of - 1]
    words = ("--organization", organization, "--fingerprint", holders.fingerprint(of))
    holders.key(number, "confirm", holders.pins(number), *words, "--collaboration", holders.federation.collaboration_id)


def test_lost_keys_are_replaced_by_everybodys_word(holders: Keyholders) -> None:
    """Organization 2 has lost its file: the administrator clears it, partner and partner's node confirm anew."""
    for target, user in ((2, 0), (1, 2)):
        old = holders.create((target,), "echo", {"value": "with the old keys"}, user=user)
        assert holders.results(old, user=user) == ["with the old keys"]
    file, organization = holders.key_file(2), holders.federation.organization_ids[1]
    file.unlink()
    said(skerry("key", "new", str(file)))
    assert "other keys" in skerry("key", "register", str(file), *holders.login(2)).stderr
    assert skerry("key", "clear", "--organization", str(organization), "--yes", *holders.login(2)).returncode == 1
    holders.key(1, "clear", "--organization", organization, "--yes")
    holders.key(2, "register", file)
    holders.restart_node(2)
    with pytest.raises(KeyChanged):
        holders.echo(2, value="to keys that nobody confirmed")
    pins = holders.key_file(1).with_name(f"{holders.key_file(1).name}.pins.json")
    words = ("--organization", organization, "--fingerprint", holders.fingerprint(2))
    holders.key(1, "confirm", pins, *words, "--collaboration", holders.federation.collaboration_id)
    assert holders.results(holders.echo(2, value="to the new keys")) == ["to the new keys"]
    changed = holders.create((1,), "echo", {"value": "from organization 2"}, user=2)
    assert "skerry key confirm" in holders.refusal(changed, user=2)
    confirm(holders, 1, of=2)
    again = holders.create((1,), "echo", {"value": "from organization 2"}, user=2)
    assert holders.results(again, user=2) == ["from organization 2"]


def test_who_is_disabled_is_stopped_at_the_nodes(holders: Keyholders) -> None:
    """The container of their run ends, and so does their session."""
    root, user = holders.federation.client(), holders.federation.client(2)
    task = holders.create((1,), "sleep", {"seconds": LONG}, user=2)
    holders.federation.wait_for_status(task["id"], "active")
    others = holders.waiting(2)
    waits = Waits(user, others["id"])
    waits.begin()
    username, refresh = user.request(f"user/{user.user_id}")["username"], user.session.tokens.refresh
    assert "shut out" in said(skerry("access", "revoke", "--user", username, *holders.login(1)))
    assert isinstance(waits.end(), AuthenticationError)
    holders.let_go(others)
    assert holders.results(others) == [{"seen": True}]
    holders.federation.wait_for_containers_to_exit()
    assert root.request(f"task/{task['id']}")["status"] == "killed by user"
    with pytest.raises(AuthenticationError):
        user.request("task")
    with pytest.raises(AuthenticationError):
        user.resume(refresh)
    with pytest.raises(AuthenticationError):
        holders.federation.client(2)
    assert "let in" in said(skerry("access", "restore", "--user", username, *holders.login(1)))
    holders.federation.client(2).request("task")


@dataclass
class Waits:
    """Somebody who waits for a task in which nothing happens: the server holds their call back for a minute."""

    client: Any
    task: int
    heard: list[Any] = field(default_factory=list)

    def begin(self) -> None:
        path = f"skerry/task/{self.task}/wait"
        seen = self.client.request(path, params={"timeout": 0})["seen"]

        def wait() -> None:
            try:
                while not self.heard:
                    seen_now = self.client.request(path, params={"seen": seen, "timeout": 60})["seen"]
                    assert seen_now == seen
            except AuthenticationError as error:
                self.heard.append(error)

        self.thread = threading.Thread(target=wait, daemon=True)
        self.thread.start()

    def end(self) -> Any:
        """How the call that waits ends, long before its minute is over."""
        self.thread.join(LONGEST_WAIT)
        assert self.heard, "the call is still held back"
        return self.heard[0]


def test_a_member_that_leaves_is_stopped_at_its_node(holders: Keyholders) -> None:
    """And is let in again when it comes back."""
    task = holders.create((2,), "sleep", {"seconds": LONG})
    holders.federation.wait_for_status(task["id"], "active")
    root, organization = holders.federation.client(), {"id": holders.federation.organization_ids[1]}
    words = ("--organization", str(organization["id"]), "--collaboration", str(holders.federation.collaboration_id))
    assert "is out" in said(skerry("access", "revoke", *words, *holders.login(1)))
    holders.federation.wait_for_containers_to_exit()
    assert root.request(f"task/{task['id']}")["status"] == "killed by user"
    with pytest.raises(InputError, match="not in collaboration"):
        holders.echo(2, value="not any more")
    assert "let in" in said(skerry("access", "restore", *words, *holders.login(1)))
    assert holders.results(holders.echo(2, value="here again")) == ["here again"]


def test_a_node_whose_api_key_was_renewed_stops_and_repeats_nothing(holders: Keyholders) -> None:
    """It is let in with the new key; the server has not heard how its run ended, and would give it again."""
    task = holders.create((2,), "sleep", {"seconds": LONG})
    holders.federation.wait_for_status(task["id"], "active")
    root, organization = holders.federation.client(), holders.federation.organization_ids[1]
    [node] = root.request("node", params={"organization_id": organization})["data"]
    fresh = root.request("recover/node", method="post", json={"id": node["id"]})["api_key"]
    holders.federation.wait_for_containers_to_exit()
    (holders.home(2) / "api-key").write_text(fresh)
    holders.federation.wait_for_status(task["id"], "unknown error")
    [run] = root.request("run", params={"task_id": task["id"]})["data"]
    starts = [record["object"]["id"] for record in holders.journal(2) if record["action"] == "run.start"]
    assert starts.count(run["id"]) == 1
    assert holders.results(holders.echo(2, value="with the new key")) == ["with the new key"]


def test_all_of_it_is_on_record(holders: Keyholders) -> None:
    """What owners did at their nodes, and what administrators did at the server; the chains of both hold."""
    confirm(holders, 2, of=1)
    said(skerry("node", "rotate-key", "--config", holders.config(2)))
    until("the node does not tell of its new key", lambda: "node.change_key" in actions(holders, 2))
    pinned = [r["details"] for r in holders.journal(2) if r["action"] == "key.pin"]
    assert {"fingerprint": "".join(holders.fingerprint(1).split()), "confirmed": True} in pinned
    [config] = holders.federation.server_folder.glob("*.yaml")
    exported = said(skerry("server", "audit", "export", "--config", str(config)))
    told = [json.loads(line) for line in exported.splitlines()]
    changes = [r["details"] for r in told if r.get("action") in {"user.change", "organization.change"}]
    assert any(details.get("disabled") is True for details in changes)
    assert any("public_key" in details and details["public_key"] is None for details in changes)
    both = ("--server", str(config), "--node", holders.config(1), "--node", holders.config(2))
    assert len(said(skerry("audit", "verify", *both)).splitlines()) == 4


def actions(holders: Keyholders, number: int) -> set[str]:
    return {record["action"] for record in holders.journal(number)}
