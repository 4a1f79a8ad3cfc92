"""A federation whose every part may die at any moment and is started again; and what it recorded meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fault_history import End, History, NodeStart, RunRow, Start, Step, TaskRow
from fault_proxy import FaultProxy

from skerry import UserClient
from skerry.audit import Verifier
from skerry.dev import Federation, Plan, nodes, processes
from skerry.dev import federation as bringing_up
from skerry.dev.federation import Places, down, up
from skerry.dev.folder import Folder, State
from skerry.dev.leftovers import mounts_below
from skerry.dev.machine import choose_port
from skerry.dev.processes import Process
from skerry.errors import BrokenChain

SKERRY = Path(sys.executable).with_name("skerry")
SERVER = "server"
IMAGE = "skerry-tests/tally"
_OPEN = ("pending", "initializing", "active")
_GLANCE = 0.02
_TAIL = 0.002


class Counter(socketserver.ThreadingTCPServer):
    """Hears from the algorithms themselves that they start and what they are about to answer."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, heard: Callable[[str, int], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Teller)
        self.heard = heard
        self.starts: list[Start] = []
        self.ends: list[End] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), name="counter", daemon=True).start()

    def note(self, event: dict[str, Any]) -> None:
        if event["kind"] == "start":
            self.starts.append(Start(event["run"], event["nonce"]))
        else:
            self.ends.append(End(event["run"], event["nonce"], event["digest"]))
        self.heard(event["kind"], event["run"])

    def handle_error(self, *_: object) -> None:
        """Their way here breaks off, too; they come again."""


class _Teller(socketserver.StreamRequestHandler):
    timeout = 20

    def handle(self) -> None:
        line = self.rfile.readline()
        if line.endswith(b"\n"):
            self.server.note(json.loads(line))  # type: ignore[attr-defined]
            self.wfile.write(b"ok\n")


class Engine:
    """A Docker engine of the suite's own, with containers that outlive it. ``folder`` holds its images."""

    def __init__(self, folder: Path, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.host = f"unix://{place}/d.sock"
        self._pidfile = place / "pid"
        self._log = place / "log"
        self._command = [
            *("dockerd", "-H", self.host, "--data-root", str(folder), "--exec-root", str(place / "exec")),
            *("--pidfile", str(self._pidfile), "--bridge=none", "--iptables=false", "--ip-forward=false"),
            "--live-restore",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Tries again when it ends: on a busy machine its own containerd may not be there in time."""
        end = time.monotonic() + 180
        while not self.answers():
            if time.monotonic() > end:
                raise TimeoutError(f"the engine does not come up: {self._log}")
            if self._process is None or self._process.poll() is not None:
                self._spawn()
            time.sleep(0.1)

    def _spawn(self) -> None:
        self._pidfile.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def answers(self) -> bool:
        return not subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode

    def kill(self) -> None:
        """dockerd alone: its containers live on, and it takes them up again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_containers(self) -> None:
        for one in self._containers("-q"):
            subprocess.run(["docker", "-H", self.host, "kill", one], capture_output=True, check=False)

    def clear(self) -> None:
        """No container is left: all of them are the suite's own, and would outlive the engine."""
        for one in self._containers("-aq"):
            subprocess.run(["docker", "-H", self.host, "rm", "-f", "-v", one], capture_output=True, check=False)

    def _containers(self, which: str) -> list[str]:
        command = ["docker", "-H", self.host, "ps", which]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)


@dataclass
class Part:
    """A process that is started again whenever it has ended."""

    name: str
    command: Sequence[str]
    process: Process
    since: float = field(default_factory=time.monotonic)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(one) for task in path.parent.parent.iterdir() for one in _read(task / "children").split()]
        return sorted(set(found))

    def proxy(self) -> int | None:
        """A node's own proxy."""
        return next((pid for pid in self.children() if "skerry_proxy" in _read(Path(f"/proc/{pid}/cmdline"))), None)


class Database(Protocol):
    """Where a world's server keeps its tables. ``url`` None: SQLite in its folder."""

    @property
    def url(self) -> str | None: ...

    def rows(self, server: Path, query: str) -> list[tuple[Any, ...]]:
        """The server may write meanwhile."""

    def folders(self) -> list[Path]:
        """In which no plaintext may lie."""

    def alive(self) -> bool: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Sqlite:
    """One file, and nothing that could die by itself."""

    url = None

    def rows(self, server: Path, query: str) -> list[tuple[Any, ...]]:
        path = next(path for path in server.rglob("*.sqlite*") if path.suffix in {".sqlite", ".sqlite3"})
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def folders(self) -> list[Path]:
        return []

    def alive(self) -> bool:
        return True

    def kill(self) -> None:
        """It is the server's own file."""

    def start(self) -> None:
        """It is the server's own file."""


class World:
    """``heard``: is told of each step of a run, by its phase's name, in the thread that found out."""

    def __init__(
        self, federation: Federation, counter: Counter, ways: tuple[FaultProxy, FaultProxy], database: Database
    ) -> None:
        self.federation = federation
        self.counter = counter
        self.database = database
        self.to_nodes, self.to_clients = ways
        self.folder = Folder(federation.folder)
        state = self.folder.load()
        assert state is not None
        self._state: State = state
        self._environment = nodes.environment()
        self.parts = {name: Part(name, self._command(name), one) for name, one in state.processes.items()}
        for number, port in enumerate(self.to_nodes.upstream[1:], start=2):
            self._add_replica(f"{SERVER}-{number}", port)
        self.server_names = [name for name in self.parts if name.startswith(SERVER)]
        self.node_names = [name for name in self.parts if name not in self.server_names]
        self.organizations = [one["id"] for one in federation.facts["organizations"]]
        self._closing = threading.Event()
        self._offsets = dict.fromkeys(self.node_names, 0)
        self._tailing = threading.Lock()
        self.heard: Callable[[str, str, int], None] = lambda *_: None
        federation.facts["server"]["url"] = f"http://127.0.0.1:{self.to_clients.port}"

    def client(self) -> UserClient:
        return self.federation.client()

    def start(self) -> None:
        for work in (self._keep, self._tail):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def kill(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.parts[name].process.pid, signal.SIGKILL)

    def kill_proxy(self, node: str) -> bool:
        pid = self.parts[node].proxy()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid is not None

    def take_room(self, name: str) -> Callable[[], None]:
        """No file of that process can grow until what is returned is called."""
        pid = self.parts[name].process.pid
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        _bound_files(pid, (0, before[1]))
        return partial(_bound_files, pid, before)

    def has_recovered(self, name: str) -> bool:
        """Not a node that is still starting."""
        part = self.parts[name]
        ready = name in self.server_names or (self.folder.node(int(name[5:])) / "state" / "ready").exists()
        return part.process.alive() and time.monotonic() - part.since > 1.0 and ready

    def catch_up(self) -> None:
        """Reads what the nodes have recorded by now."""
        with self._tailing:
            for name in self.node_names:
                self._read_trail(name)

    def stop_parts(self) -> None:
        self._closing.set()
        time.sleep(2 * _GLANCE)
        for one in (self.node_names, self.server_names):
            processes.stop([self.parts[name].process for name in one])

    def _add_replica(self, name: str, port: int) -> None:
        command = [*self._command(SERVER)[:-1], str(port)]
        process = processes.start(command, self.folder.log(name), self._environment)
        self.parts[name] = Part(name, command, process)
        self._state.processes[name] = process
        self.folder.store(self._state)

    def _command(self, name: str) -> list[str]:
        if name.startswith(SERVER):
            config = str(next(self.folder.server.glob("*.yaml")))
            return [str(SKERRY), "server", "start", "--config", config, "--port", str(self._state.port)]
        return [str(SKERRY), "node", "start", "--config", str(self.folder.node(int(name[5:])) / "node.yaml")]

    def _keep(self) -> None:
        while not self._closing.wait(_GLANCE):
            for name, part in self.parts.items():
                if not part.process.alive():
                    self._start_again(name, part)

    def _start_again(self, name: str, part: Part) -> None:
        if name in self.node_names:
            (self.folder.node(int(name[5:])) / "state" / "ready").unlink(missing_ok=True)
        time.sleep(random.uniform(0, 0.3))  # noqa: S311
        part.process = processes.start(part.command, self.folder.log(name), self._environment)
        part.since = time.monotonic()
        self._state.processes[name] = part.process
        self.folder.store(self._state)

    def _tail(self) -> None:
        while not self._closing.wait(_TAIL):
            self.catch_up()

    def _read_trail(self, name: str) -> None:
        path = self._trail(name)
        try:
            size = path.stat().st_size
            if size <= self._offsets[name]:
                return
            with path.open("rb") as file:
                file.seek(self._offsets[name])
                new = file.read(size - self._offsets[name])
        except FileNotFoundError:
            return
        whole = new.rfind(b"\n") + 1
        self._offsets[name] += whole
        for line in new[:whole].splitlines():
            record = json.loads(line)
            if record["action"].startswith("run.") and "run" in record["about"]:
                self.heard(name, record["action"], record["about"]["run"])

    def _trail(self, name: str) -> Path:
        return self.folder.node(int(name[5:])) / "state" / "audit" / "audit.jsonl"

    # --- what was recorded -------------------------------------------------------------------------------

    def read_history(self, canary: str, **known: Any) -> History:
        """After ``stop_parts``. ``known`` is what the driver itself recorded."""
        rows = partial(self.database.rows, self.folder.server)
        tasks = [TaskRow(*row) for row in rows("SELECT id, name FROM task")]
        columns = "SELECT id, task_id, state, attempt, result_id IS NOT NULL FROM run"
        runs = [RunRow(*row[:4], has_result=bool(row[4])) for row in rows(columns)]
        lines = self._chains()
        records = [json.loads(line) for written in lines.values() for line in written]
        return History(
            starts=tuple(self.counter.starts),
            ends=tuple(self.counter.ends),
            tasks=tuple(tasks),
            runs=tuple(runs),
            steps=tuple(_steps(records)),
            node_starts=tuple(_node_starts(lines)),
            plaintext=tuple(self._plaintext(canary)),
            broken=tuple(_broken(lines)),
            left=tuple(self._left()),
            **known,
        )

    def is_quiet(self) -> bool:
        """No run is open, and no node has anything left to do."""
        [(open_,)] = self.database.rows(self.folder.server, f"SELECT count(*) FROM run WHERE state IN {_OPEN}")  # noqa: S608
        homes = (self.folder.node(int(name[5:])) for name in self.node_names)
        return not open_ and not any(list((home / "state" / "runs").iterdir()) for home in homes)

    def _chains(self) -> dict[str, list[bytes]]:
        found = {}
        for name in (SERVER, *self.node_names):
            config = next(self.folder.server.glob("*.yaml")) if name == SERVER else Path(self.parts[name].command[-1])
            what = ["server", "audit", "export"] if name == SERVER else ["node", "audit", "--json"]
            command = [str(SKERRY), *what, "--config", str(config)]
            found[name] = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
        return found

    def _plaintext(self, canary: str) -> Iterator[str]:
        """Nothing of the server's, and nothing that a node keeps, shows what an algorithm wrote."""
        homes = [self.folder.node(int(name[5:])) for name in self.node_names]
        for folder in (self.folder.server, self.folder.logs, *homes, *self.database.folders()):
            for path in folder.rglob("*"):
                if path.is_file() and not path.is_symlink() and canary.encode() in path.read_bytes():
                    yield str(path)

    def _left(self) -> Iterator[str]:
        for name in self.node_names:
            home = self.folder.node(int(name[5:]))
            yield from (f"{name}'s {entry.name}" for entry in (home / "state" / "runs").iterdir())
            installation = nodes.installation(self.folder, int(name[5:]))
            what = ["--filter", f"label=skerry.installation={installation}", "--filter", "label=skerry.kind=algorithm"]
            listed = subprocess.run(
                ["docker", "ps", "-a", "--format", "{{.Names}} ({{.Status}})", *what],
                capture_output=True,
                text=True,
                check=True,
            )
            yield from (f"{name}'s container {one}" for one in listed.stdout.splitlines())
        yield from (f"mount {one}" for one in mounts_below(self.folder.path) if "/runs/" in one)


def _bound_files(pid: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _steps(records: Sequence[dict[str, Any]]) -> Iterator[Step]:
    for record in records:
        if record.get("object", {}).get("kind") == "run" and "state" in record.get("details", {}):
            yield Step(record["object"]["id"], record["details"]["state"])


def _node_starts(lines: dict[str, list[bytes]]) -> Iterator[NodeStart]:
    for name, written in lines.items():
        for line in written:
            record = json.loads(line)
            if name != SERVER and record.get("action") == "run.started":
                yield NodeStart(name, record["about"]["run"], record["about"]["attempt"])


def _broken(lines: dict[str, list[bytes]]) -> Iterator[str]:
    verifier = Verifier()
    try:
        for name, written in lines.items():
            for line in written:
                verifier.feed(line, name)
        verifier.finish()
    except BrokenChain as error:
        yield str(error)


def digest(result: Any) -> str:
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()


@contextmanager
def tables_at(url: str | None) -> Iterator[None]:
    """A server that ``skerry dev`` founds meanwhile has its tables there; it knows of no other than SQLite itself."""
    original = bringing_up._run

    def run(folder: Folder, state: State, arguments: Sequence[str], words: str = "") -> None:
        original(folder, state, arguments, words)
        if url is not None and tuple(arguments[:2]) == ("server", "new"):
            with next(folder.server.glob("*.yaml")).open("a") as file:
                file.write(f"database: {json.dumps(url)}\n")

    bringing_up._run = run
    try:
        yield
    finally:
        bringing_up._run = original


@contextmanager
def running(
    name: str,
    *,
    count: int = 3,
    parallel: int = 6,
    replicas: int = 1,
    database: Database | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[World]:
    """A federation on the engine at DOCKER_HOST, with a fault proxy before its server for nodes, and one for users."""
    ports, database = [choose_port(None) for _ in range(replicas)], database or Sqlite()
    ways = (FaultProxy(ports), FaultProxy(ports))
    for way in ways:
        way.start()
    made: list[World] = []
    counter = Counter(lambda kind, run: made[0].heard("", f"counter.{kind}", run) if made else None)
    settings: dict[str, Any] = {
        "server": {"url": f"http://127.0.0.1:{ways[0].port}"},
        "gates": [{"name": "counter", "destination": f"127.0.0.1:{counter.server_address[1]}"}],
        "limits": {"parallel_runs": parallel},
    }
    if "DOCKER_HOST" in os.environ:
        settings["docker"] = {"host": os.environ["DOCKER_HOST"]}
    plan, places = (
        Plan(name=name, nodes=count, launcher="docker", port=ports[0], node_settings=settings),
        Places.of_user(),
    )
    with tables_at(database.url):
        federation = up(plan, places, say)
    try:
        made.append(World(federation, counter, ways, database))
        made[0].start()
        try:
            yield made[0]
        finally:
            made[0].stop_parts()
    finally:
        for way in ways:
            way.close()
        counter.shutdown()
        counter.server_close()
        down(name, places, say)
