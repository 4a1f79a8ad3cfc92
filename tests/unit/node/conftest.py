"""A node whose launcher, proxy and server are fakes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from skerry.errors import Conflict
from skerry.trust import Sender
from skerry_node import areas
from skerry_node.approvals import Approvals
from skerry_node.config import Config
from skerry_node.jobs import JobFolders
from skerry_node.journal import Journal
from skerry_node.launchers import fakes
from skerry_node.losses import Losses
from skerry_node.orders import parse_order
from skerry_node.pipeline import Parts
from skerry_node.places import Places
from skerry_node.pulled import PulledImages
from skerry_node.trail import FOLDER, Trail, now
from skerry_proxy.client import GateUse, OpenedRun, ProxyError, Sealed


@dataclass
class FakeProxy:
    """Seals by reversing; ``trouble`` is raised by the operation of that name, once for each in its list."""

    trouble: dict[str, list[ProxyError]] = field(default_factory=dict)
    delivered: list[tuple[str, str | None, bytes | None]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    served: int = 0
    relays: dict[str, int] = field(default_factory=dict)
    method: str = "mean"
    signed: bool = True

    def _maybe_fail(self, operation: str) -> None:
        self.asked.append(operation)
        if self.trouble.get(operation):
            raise self.trouble[operation].pop(0)

    def open(self, order, destination):
        self._maybe_fail("open")
        os.write(destination, json.dumps({"method": self.method}).encode())
        task = order["task"]
        labels = tuple(database["label"] for database in task["databases"])
        return OpenedRun(Sender(1, 7, 1, self.signed), self.method, labels, task["image"], {"run": order["run"]})

    def serve(self, resume, token, listeners, relays=()):
        self._maybe_fail("serve")
        assert all(os.fstat(listener) for listener in (*listeners, *(listener for _, listener in relays)))
        self.served += 1
        self.relays = {lead.name: listener for lead, listener in relays}
        return "gate-token"

    def seal(self, resume, log, output, destination):
        self._maybe_fail("seal")
        if output is None:
            return Sealed(0, log[::-1])
        content = os.read(output, 1 << 20)
        os.write(destination, content[::-1])
        return Sealed(len(content), log[::-1])

    def deliver(self, resume, token, status, log, sealed):
        self._maybe_fail("deliver")
        content = os.read(sealed, 1 << 20)[::-1] if sealed is not None else None
        self.delivered.append((str(status), log and log[::-1], content))
        return str(status)

    def hand_over(self, resume, token, status, log, output):
        self._maybe_fail("hand_over")
        content = b""
        while piece := os.read(output, 1 << 20):
            content += piece
        self.delivered.append((str(status), log and log[::-1], content))
        return str(status)

    def close(self, run, attempt):
        tallies = [{"name": name, "connections": 1, "refused": 0, "sent": 2, "received": 3} for name in self.relays]
        return GateUse({"GET /task/<id>": 2}, {"403": 1}, (9,), tuple(tallies))

    def pins(self):
        self._maybe_fail("pins")
        return []


@dataclass
class FakeServer:
    reports: list[tuple] = field(default_factory=list)
    finished: list[tuple] = field(default_factory=list)
    shown: list[tuple] = field(default_factory=list)
    fenced: bool = False

    def report(self, attempt, status):
        if self.fenced:
            raise Conflict("The attempt is not the current one.", 409)
        self.reports.append((attempt, str(status)))

    def run_token(self, attempt):
        return "fresh"

    def show_log(self, attempt, log):
        self.shown.append((attempt, log[::-1]))

    def finish(self, attempt, status, text):
        self.finished.append((attempt, str(status), text))


@pytest.fixture
def proxy() -> FakeProxy:
    return FakeProxy()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def launcher() -> fakes.FakeLauncher:
    images = {
        "copy": fakes.copy_input,
        "fail": fakes.fail,
        "nothing": fakes.write_nothing,
        "wait": fakes.wait_for_kill,
        "unstartable": fakes.unstartable,
    }
    return fakes.FakeLauncher(images)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "table.csv").write_text("a\n1\n")
    return Config.model_validate(
        {
            "name": "node 1",
            "server": {"url": "http://127.0.0.1:5000"},
            "api_key_file": str(tmp_path / "api-key"),
            "state_folder": str(tmp_path / "state"),
            "encryption": None,
            "databases": [{"label": "default", "uri": str(tmp_path / "table.csv"), "type": "csv"}],
            "policies": {"allowed_algorithms": [".*"]},
        }
    )


@pytest.fixture
def parts(config, launcher, proxy, server, monkeypatch) -> Iterator[Parts]:
    monkeypatch.setattr(areas, "mountable", lambda: False)
    config.state_folder.mkdir()
    jobs = JobFolders(config.state_folder / "jobs", config.limits.temporary, None)
    journal = Journal(config.state_folder / "runs")
    approvals = Approvals(config.state_folder)
    approvals.start()
    places, pulled = Places(1, lambda: None), PulledImages(config.state_folder)
    trail = Trail(config.state_folder / FOLDER, now)
    closing = threading.Event()
    losses = Losses(journal, server, trail, closing)
    yield Parts(config, launcher, proxy, server, journal, jobs, None, closing, places, approvals, pulled, trail, losses)
    trail.close()
    journal.close()


@pytest.fixture
def make_order():
    return _make_order


def _make_order(image: str = "copy", run: int = 7, attempt: int = 1, databases: list[str] | None = None):
    return parse_order(
        {
            "run": run,
            "attempt": attempt,
            "task": {
                "id": 5,
                "uuid": f"uuid-{run}",
                "job_id": 5,
                "image": image,
                "databases": [{"label": label} for label in databases or []],
            },
            "input": None,
            "input_size": 3,
            "token": "first",
            "token_expires_in": 900,
        }
    )


@pytest.fixture
def development(tmp_path):
    """The configuration of a node for development."""
    (tmp_path / "api-key").touch(mode=0o600)
    (tmp_path / "table.csv").write_text("a\n")
    (tmp_path / "table.csv").chmod(0o600)
    settings = {
        "name": "node 1",
        "server": {"url": "http://127.0.0.1:1"},
        "api_key_file": "api-key",
        "state_folder": "state",
        "encryption": None,
        "databases": [{"label": "default", "uri": "table.csv", "type": "csv"}],
        "launcher": "process",
        "process": {"registry": "registry"},
        "development": True,
    }
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "node.yaml"
