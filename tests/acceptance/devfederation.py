"""A federation that ``skerry dev`` made, as the acceptance tests drive it: by its command line and by the SDK."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walks import below

from skerry import UserClient

ALGORITHMS = Path(__file__).parent.parent / "algorithms"
SKERRY = Path(sys.executable).with_name("skerry")
PATIENCE = 120


def skerry(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SKERRY), *arguments], capture_output=True, text=True, check=False, **options)


@dataclass
class DevFederation:
    """What ``skerry dev up --json`` printed, and what the tests do with it."""

    name: str
    arguments: tuple[str, ...]
    facts: dict[str, Any]
    started: float

    @property
    def organization_ids(self) -> list[int]:
        return [organization["id"] for organization in self.facts["organizations"]]

    @property
    def collaboration_id(self) -> int:
        return int(self.facts["collaboration"]["id"])

    @property
    def port(self) -> int:
        return int(self.facts["server"]["url"].rsplit(":", 1)[1])

    @property
    def server_pid(self) -> int:
        return int(self.facts["server_pid"])

    @property
    def node_pids(self) -> list[int]:
        return [node["pid"] for node in self.facts["nodes"]]

    @property
    def folder(self) -> Path:
        return Path(self.facts["organizations"][0]["private_key_file"]).parents[1]

    @property
    def server_folder(self) -> Path:
        return self.folder / "server"

    def engine_filters(self) -> list[list[str]]:
        """For the docker command: the containers of each of its nodes."""
        installations = [path.read_text().strip() for path in below(self.folder, "installation")]
        return [["--filter", f"label=skerry.installation={one}"] for one in installations]

    @property
    def parallel_runs(self) -> int:
        return 4

    def client(self, user: int = 0, *, encryption: bool = True) -> UserClient:
        """A client that is logged in as one of the users, with its organization's key."""
        address, port = self.facts["server"]["url"].rsplit(":", 1)
        client = UserClient(address, int(port), self.facts["server"]["api_path"])
        who = self.facts["users"][user]
        client.authenticate(who["username"], who["password"])
        if encryption and self.facts["collaboration"]["encrypted"]:
            organizations = {one["id"]: one for one in self.facts["organizations"]}
            client.setup_encryption(organizations[who["organization_id"]]["private_key_file"])
        else:
            client.setup_encryption(None)
        return client

    def end_node(self, number: int) -> None:
        _end(self.node_pids[number - 1])

    def end_server(self) -> None:
        _end(self.server_pid)

    def restart(self) -> None:
        """Starts what has died."""
        again = skerry("dev", "up", "--name", self.name, *self.arguments, "--json")
        assert again.returncode == 0, again.stderr
        self.facts = json.loads(again.stdout)

    def wait_for_status(self, task_id: int, status: str) -> None:
        self._wait(task_id, lambda answer: {run["status"] for run in answer["runs"]} == {status})

    def wait_for_child(self, task_id: int, status: str) -> None:
        client, end = self.client(), time.monotonic() + PATIENCE
        self.wait_for_status(task_id, "active")
        while time.monotonic() < end:
            children = client.request("task", params={"parent_id": task_id})["data"]
            if children:
                return self.wait_for_status(children[0]["id"], status)
            time.sleep(0.1)
        raise AssertionError(f"task {task_id} made no child")

    def node_logs(self) -> str:
        logs = [path for path in below(self.folder) if path.suffix == ".log" and path.name.startswith("node-")]
        assert logs
        return "".join(path.read_text() for path in logs)

    def wait_for_line(self, words: str) -> None:
        """Until a node's log says so: what a node does after a run's result is there, it logs later than that."""
        end = time.monotonic() + PATIENCE
        while words not in self.node_logs():
            assert time.monotonic() < end, f"no line says: {words}"
            time.sleep(0.1)

    def wait_for_containers_to_exit(self) -> None:
        """Until no algorithm's container of its nodes runs any more."""
        end = time.monotonic() + PATIENCE
        for node in self.engine_filters():
            running = ["docker", "ps", "-q", "--filter", "label=skerry.kind=algorithm", *node]
            while subprocess.run(running, capture_output=True, check=True).stdout.strip():
                assert time.monotonic() < end, "a container does not end"
                time.sleep(0.1)

    def _wait(self, task_id: int, done: Callable[[dict[str, Any]], bool]) -> None:
        client, end, seen = self.client(), time.monotonic() + PATIENCE, ""
        while time.monotonic() < end:
            answer = client.request(f"skerry/task/{task_id}/wait", params={"seen": seen, "timeout": 10})
            seen = answer["seen"]
            if done(answer):
                return
        raise AssertionError(f"task {task_id} did not get there: {answer}")


def _end(pid: int) -> None:
    """Until the process is over: ``dev up`` would take one that is about to end for one that starts."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        assert select.select([process], [], [], PATIENCE)[0], "it does not end"
    finally:
        os.close(process)


@contextmanager
def start(*arguments: str) -> Iterator[DevFederation]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    began = time.time()
    up = skerry("dev", "up", "--name", name, *arguments, "--json")
    try:
        assert up.returncode == 0, up.stderr
        yield DevFederation(name, arguments, json.loads(up.stdout), began)
    finally:
        down = skerry("dev", "down", "--name", name)
        assert down.returncode == 0, down.stderr


def build(folder: Path, tag: str) -> str:
    built = skerry("algorithm", "build", str(folder), "--tag", tag)
    assert built.returncode == 0, built.stderr
    return tag
