"""Several processes of one server on one database, and HAProxy before them as the documentation configures it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from clusters import Cluster, free_port

from skerry_server.app import create_app
from skerry_server.models import Collaboration, Node, Organization
from skerry_server.server import open_server
from skerry_server.services.login import digest_api_key, new_api_key
from skerry_server.services.users import found_root
from skerry_server.settings import load
from skerry_server.tokens import for_node, for_user

SKERRY = Path(sys.executable).with_name("skerry")
EXAMPLE = Path(__file__).parent.parent / "docs" / "how-to" / "haproxy.cfg"
AWAY = {429, 502, 503, 504}
PATIENCE = 60.0
TASKS = 30
PASSWORD = "Aa1-correct-horse"


@dataclass
class Replica:
    """One process of the server; ``environment`` is what it has beside this process's."""

    config: Path
    port: int
    process: subprocess.Popen[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        command = [str(SKERRY), "server", "start", "--config", str(self.config), "--port", str(self.port)]
        with self.log.open("a") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        assert "ready" in self.process.stdout.readline(), self.log.read_text()

    @property
    def log(self) -> Path:
        return self.config.with_name(f"log-{self.port}")

    def end(self, sig: int = signal.SIGKILL) -> int:
        """The exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(sig)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@dataclass
class Caller:
    """Speaks as one user or node; ``ok`` repeats what the server could not answer, as skerry's own parts do."""

    url: str
    token: str
    refused: list[int] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return requests.request(method, f"{self.url}/{path}", json=body, headers=headers, timeout=70, **options)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self.ask(method, path, body)
            except requests.RequestException:
                answer = None
            if answer is not None and answer.status_code not in AWAY:
                assert answer.status_code in {200, 201}, answer.text
                return answer.json()
            self.refused.append(answer.status_code if answer is not None else 0)
            assert time.monotonic() < deadline, f"{method} {path}: {self.refused[-5:]}"
            time.sleep(0.05)

    def at(self, url: str) -> Caller:
        return Caller(url, self.token)


@dataclass
class Replicas:
    """``balancer`` is the address of HAProxy."""

    config: Path
    each: list[Replica]
    facts: dict[str, Any]
    balancer: str = ""

    @property
    def root(self) -> Caller:
        return Caller(self.balancer or self.each[0].url, self.facts["root"])

    def node(self, index: int) -> Caller:
        return Caller(self.balancer or self.each[0].url, self.facts["nodes"][index])

    def task(self, *indexes: int) -> dict[str, Any]:
        """The body of a task for these nodes' organizations."""
        targets = [{"id": self.facts["organizations"][index], "input": "e30="} for index in indexes]
        where = self.facts["collaboration"]
        return {"image": "image", "collaboration_id": where, "organizations": targets, "uuid": str(uuid.uuid4())}


@contextmanager
def replicas(
    folder: Path, database: str | None, *, count: int = 2, nodes: int = 3, settings: str = "", balanced: bool = True
) -> Iterator[Replicas]:
    """Founded and started, with HAProxy before them when ``balanced``; all ended with the block."""
    config = folder / "server.yaml"
    config.write_text(f'database: {json.dumps(database)}\ntrusted_proxies: ["127.0.0.1"]\n{settings}')
    made = Replicas(config, [Replica(config, free_port()) for _ in range(count)], _found(config, nodes))
    with ExitStack() as ended:
        for replica in made.each:
            ended.callback(replica.end)
            replica.start()
        if balanced:
            made.balancer = ended.enter_context(haproxy(folder, [replica.port for replica in made.each]))
        yield made


def work(node: Caller, capacity: int = 10, wait: float = 0, holding: Any = ()) -> Any:
    return node.ok("POST", "skerry/node/work", {"capacity": capacity, "wait": wait, "holding": list(holding)})


def finish(node: Caller, order: dict[str, Any]) -> Any:
    body = {"attempt": order["attempt"], "status": "completed", "log": "log", "result": "MQ=="}
    return node.ok("POST", f"skerry/run/{order['run']}/finish", body)


def run_all_meanwhile(made: Replicas, strike: Callable[[], None]) -> None:
    """Tasks are created and run by three nodes while this strikes: none is lost, none is run twice."""
    done, claimed, stop = set[int](), list[tuple[int, int]](), threading.Event()

    def serve(index: int) -> None:
        node, held = made.node(index), dict[int, int]()
        while not stop.is_set():
            holding = [{"run": run, "attempt": attempt} for run, attempt in held.items()]
            for order in work(node, 5, 1, holding)["runs"]:
                claimed.append((order["run"], order["attempt"]))
                held[order["run"]] = order["attempt"]
                finish(node, order)
                done.add(order["run"])
                del held[order["run"]]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        nodes = [pool.submit(serve, index) for index in range(3)]
        created = [pool.submit(made.root.ok, "POST", "task", made.task(n % 3, (n + 1) % 3)) for n in range(TASKS)]
        strike()
        tasks = [one.result(120)["id"] for one in created]
        for task in tasks:
            while not made.root.ok("GET", f"skerry/task/{task}/wait?timeout=1")["finished"]:
                pass
        stop.set()
        for node in nodes:
            node.result(60)
    assert len(set(tasks)) == TASKS
    runs = made.root.ok("GET", "run?per_page=1000")["data"]
    assert len(runs) == 2 * TASKS
    assert {run["status"] for run in runs} == {"completed"}
    assert {attempt for _, attempt in claimed} == {1}
    assert done == {run["id"] for run in runs}


@contextmanager
def haproxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """The URL of the API behind it, once a process of the server answers there."""
    with balancer(folder, ports) as port:
        url = f"http://127.0.0.1:{port}/api"
        Caller(url, "").ok("GET", "skerry/health/ready")
        yield url


@contextmanager
def balancer(folder: Path, ports: Sequence[int]) -> Iterator[int]:
    """HAProxy by the documentation's example with other addresses and without TLS; its port."""
    port, config = free_port(), folder / "haproxy.cfg"
    text = re.sub(r"bind .*", f"bind 127.0.0.1:{port}", EXAMPLE.read_text())
    for name, behind in zip(re.findall(r"server (\w+) 10", text), ports, strict=True):
        text = re.sub(rf"server {name} .*", f"server {name} 127.0.0.1:{behind}", text)
    config.write_text(text)
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", config], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def database(cluster: Cluster) -> Iterator[str]:
    name = cluster.make_database()
    yield cluster.url(name)
    cluster.drop_database(name)


def _found(config: Path, count: int) -> dict[str, Any]:
    """Root, a collaboration that is not encrypted, and ``count`` other organizations with a node each."""
    server = open_server(load(config))
    with server.database.writing() as session:
        root = found_root(session, "root", PASSWORD, "first")
        others = [Organization(name=f"organization {n}") for n in range(count)]
        session.add_all(others)
        members = [root.organization, *others]
        home = Collaboration(name="all", encrypted=False, accept="native", organizations=members)
        keys = [digest_api_key(new_api_key()) for _ in others]
        session.add_all(
            Node(name=f"node {n}", organization=one, collaboration=home, api_key=key)
            for n, (one, key) in enumerate(zip(others, keys, strict=True))
        )
        session.flush()
        app = create_app(server)
        with app.app_context():
            nodes = session.query(Node).order_by(Node.id).all()
            facts = {
                "root": for_user(root)["access_token"],
                "nodes": [for_node(node)["access_token"] for node in nodes],
                "node_ids": [node.id for node in nodes],
                "organizations": [one.id for one in others],
                "collaboration": home.id,
            }
    server.database.close()
    return facts
