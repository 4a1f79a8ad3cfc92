"""A real server process with a thousand idle waiters: no thread each, and an event wakes exactly who it should."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from skerry.wire import Status
from skerry_server import tokens
from skerry_server.app import create_app
from skerry_server.models import Collaboration, Node, Organization, User, utcnow
from skerry_server.policy import Actor, Kind
from skerry_server.server import Server, open_server
from skerry_server.services.actors import load_actor
from skerry_server.services.login import digest_api_key, new_api_key
from skerry_server.services.tasks import Target, TaskSpec, create_task
from skerry_server.services.users import found_root
from skerry_server.services.work import Report, find_work
from skerry_server.settings import load

pytestmark = pytest.mark.integration

NODES = WAITS = 500
THREADS = 8
CONFIG = f"limits: {{threads: {THREADS}}}\nport: 0\n"
SKERRY = Path(sys.executable).with_name("skerry")


@dataclass
class Running:
    """The process, and what the test needs to speak to it."""

    process: subprocess.Popen[str]
    port: int
    root: str
    nodes: list[str]
    runs: list[tuple[int, int, int]]  # node's index, task, run
    collaboration: int
    organizations: list[int]

    def ask(self, method: str, path: str, token: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/{path}"
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.request(method, url, json=body, headers=headers, timeout=30)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    @property
    def threads(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"Threads:\s+(\d+)", status)[1])  # type: ignore[index]


def found(server: Server) -> dict[str, Any]:
    """500 organizations with a node each; each node holds one run of a task of its own."""
    now = utcnow()
    with server.database.writing() as session:
        root = found_root(session, "root", "Aa1-correct-horse", "first")
        others = [Organization(name=f"organization {n}") for n in range(NODES)]
        session.add_all(others)
        collaboration = Collaboration(
            name="all", encrypted=False, accept="native", organizations=[root.organization, *others]
        )
        nodes = [
            Node(name=f"node {n}", organization=o, collaboration=collaboration, api_key=digest_api_key(new_api_key()))
            for n, o in enumerate(others)
        ]
        session.add_all(nodes)
        session.flush()
        ids = [node.id for node in nodes]
        actor = load_actor(session, Kind.USER, {"sub": root.id, "epoch": root.epoch})
        tasks = [_task(session, server, actor, collaboration.id, o.id, now) for o in others]
        runs = []
        for index, (node, task) in enumerate(zip(nodes, tasks, strict=True)):
            who = Actor(Kind.NODE, node.id, node.organization_id, {collaboration.id: frozenset()}, frozenset())
            [run] = find_work(session, who, Report(1, {}, []), server.lease, now).runs
            runs.append((index, task.id, run.id))
        facts = {"runs": runs, "collaboration": collaboration.id, "organizations": [o.id for o in others]}
    app = create_app(server)
    with server.database.reading() as session, app.app_context():
        facts["root"] = tokens.for_user(session.get_one(User, root.id))["access_token"]
        facts["nodes"] = [tokens.for_node(session.get_one(Node, id_))["access_token"] for id_ in ids]
    assert isinstance(app, Flask)
    return facts


def _task(  # noqa: PLR0917 - short
    session: Any, server: Server, actor: Actor, collaboration: int, organization: int, now: Any
) -> Any:
    target = Target(organization, base64.b64encode(b'{"method": "x"}').decode())
    spec = TaskSpec("image", (target,), collaboration, uuid=str(uuid.uuid4()))
    return create_task(session, actor, spec, server.payloads, now)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    config = tmp_path / "server.yaml"
    config.write_text(CONFIG)
    server = open_server(load(config))
    facts = found(server)
    server.database.close()
    command = [str(SKERRY), "server", "start", "--config", str(config)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(re.search(r":(\d+)/api", line)[1])  # type: ignore[index]
    yield Running(process, port, **facts)
    process.kill()
    process.wait()
    process.stdout.close()


class Waiter:
    """One open connection with one long request on it."""

    def __init__(self, name: str, request: bytes) -> None:
        self.name = name
        self._request = request

    async def ask(self, port: int) -> Waiter:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(self._request)
        await self._writer.drain()
        return self

    async def answer(self) -> tuple[str, int, Any]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = int(re.search(r"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        body = await self._reader.readexactly(length)
        self._writer.close()
        return self.name, int(head.split()[1]), json.loads(body)


def post(path: str, token: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /api/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def get(path: str, token: str) -> bytes:
    return f"GET /api/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def waiters(running: Running) -> dict[str, asyncio.Task[tuple[str, int, Any]]]:
    """All nodes ask for work, and someone waits for each task; nothing is said to any of them yet."""
    requests_ = {}
    for _, task, _ in running.runs[:WAITS]:
        path = f"skerry/task/{task}/wait"
        seen = (await asyncio.to_thread(running.ask, "GET", path, running.root))["seen"]
        requests_[f"task {task}"] = get(f"{path}?seen={seen}&timeout=60", running.root)
    for index, task, run in running.runs:
        body = {"capacity": 3, "holding": [{"run": run, "attempt": 1}], "jobs": [task], "wait": 50}
        requests_[f"node {index}"] = post("skerry/node/work", running.nodes[index], body)
    found = {}
    for name, request in requests_.items():
        waiter = await Waiter(name, request).ask(running.port)
        found[name] = asyncio.create_task(waiter.answer(), name=name)
    return found


async def answered(waiting: dict[str, asyncio.Task[Any]]) -> set[str]:
    """Who has been answered, once at least one has and everything that was on its way has arrived."""
    await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED, timeout=30)
    return {name for name, task in waiting.items() if task.done()}


async def settle(running: Running, waiting: dict[str, asyncio.Task[Any]]) -> None:
    """Until the server has looked at every request: its answers to ordinary ones queue behind them."""
    deadline = time.monotonic() + 60
    while _busy(running.process.pid) and time.monotonic() < deadline:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.2)
    assert not any(task.done() for task in waiting.values())


def _busy(pid: int) -> bool:
    """Whether the process used the processor during a fifth of a second."""

    def used() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(0.2)
    return used() - before > 1


async def scenario(running: Running) -> None:
    waiting = await waiters(running)
    await settle(running, waiting)
    assert running.threads < THREADS + 12
    assert _connections(running.process.pid) >= NODES + WAITS
    for path in ("version", "task?per_page=2", "node?status=online&per_page=1"):
        await asyncio.to_thread(running.ask, "GET", path, running.root)

    index, task, run = running.runs[7]
    status = {"attempt": 1, "status": Status.ACTIVE}
    await asyncio.to_thread(running.ask, "POST", f"skerry/run/{run}/status", running.nodes[index], status)
    assert await answered(waiting) == {f"task {task}"}
    assert waiting.pop(f"task {task}").result()[2]["status"] == "active"

    body = {
        "image": "image",
        "collaboration_id": running.collaboration,
        "organizations": [{"id": running.organizations[11], "input": "e30="}],
        "uuid": str(uuid.uuid4()),
    }
    made = await asyncio.to_thread(running.ask, "POST", "task", running.root, body)
    assert await answered(waiting) == {"node 11"}
    assert waiting.pop("node 11").result()[2]["runs"][0]["task"]["id"] == made["id"]

    _, task, _ = running.runs[20]
    await asyncio.to_thread(running.ask, "POST", "kill/task", running.root, {"id": task})
    await asyncio.wait([waiting["node 20"], waiting[f"task {task}"]], timeout=30)
    assert await answered(waiting) == {"node 20", f"task {task}"}
    assert waiting.pop("node 20").result()[2]["stop"][0]["reason"] == "killed by user"
    assert waiting.pop(f"task {task}").result()[2]["finished"]

    running.process.send_signal(signal.SIGTERM)
    last = await asyncio.wait_for(asyncio.gather(*waiting.values()), 60)
    assert {status for _, status, _ in last} == {200}
    assert await asyncio.to_thread(running.process.wait, 30) == 0


def _connections(pid: int) -> int:
    return sum(str(entry.readlink()).startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())


def test_a_thousand_waiters(running: Running) -> None:
    asyncio.run(scenario(running))
