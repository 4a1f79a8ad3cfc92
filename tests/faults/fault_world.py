"""A federation whose every part may die at any moment and is started again; and what it recorded meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from fault_history import End, History, NodeStart, RunRow, Start, Step, TaskRow
from fault_host import Clock, Disk, remove_clocks
from fault_proxy import FaultProxy
from fault_wire import Wire
from replicas import balancer
from walks import below, contents

from skerry import UserClient
from skerry.audit import Verifier
from skerry.dev import Federation, Plan, nodes, processes
from skerry.dev import federation as bringing_up
from skerry.dev.federation import Places, down, up
from skerry.dev.folder import Folder, State
from skerry.dev.leftovers import mounts_below
from skerry.dev.machine import choose_port
from skerry.dev.processes import Process
from skerry.errors import AuthenticationError, BrokenChain

SKERRY = Path(sys.executable).with_name("skerry")
SERVER = "server"
IMAGE = "skerry-tests/tally"
_OPEN = ("pending", "initializing", "active")
_GLANCE = 0.02
_TAIL = 0.003
_START_SECONDS = 90.0


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
            self.starts.append(Start(event["run"], event["nonce"], time.monotonic()))
        else:
            self.ends.append(End(event["run"], event["nonce"], event["digest"], time.monotonic()))
        self.heard(event["kind"], event["run"])

    def handle_error(self, *_: object) -> None:
        """Their way here breaks off, too; they come again."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Teller(socketserver.StreamRequestHandler):
    timeout = 20

    def handle(self) -> None:
        line = self.rfile.readline()
        if line.endswith(b"\n"):
            self.server.note(json.loads(line))  # type: ignore[attr-defined]
            self.wfile.write(b"ok\n")


class Engine:
    """A Docker engine of the suite's own, with containers that outlive it. ``folder`` holds its images.

    It has a network namespace of its own: an engine without a bridge removes the one that another engine made.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._socket, near = place / "d.sock", place / "wire.sock"
        self.host = f"unix://{self._socket}"
        self.wire = Wire.to_socket(near, self._socket)
        self.host_for_nodes = f"unix://{near}"
        self._pidfile = place / "pid"
        self._containerd = place / "exec" / "containerd" / "containerd.pid"
        self._log = place / "log"
        self._command = [
            *(
                "unshare",
                "--net",
                "dockerd",
                "-H",
                self.host,
                "--data-root",
                str(folder),
                "--exec-root",
                str(place / "exec"),
            ),
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
        self._forget_containerd()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def _forget_containerd(self) -> None:
        """It dies with its dockerd. The next one would wait for it, for as long as nobody has collected the zombie."""
        pid = _read(self._containerd).strip()
        while pid and _read(Path(f"/proc/{pid}/comm")) == "containerd\n" and not _is_zombie(pid):
            time.sleep(_GLANCE)
        self._containerd.unlink(missing_ok=True)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
        return False

    def end(self, signal_: int) -> None:
        """dockerd alone: its containers live on, and it takes them up again."""
        assert self._process is not None
        self._process.send_signal(signal_)
        self._process.wait()

    def pause(self) -> Callable[[], None]:
        """It does nothing until what is returned is called."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        return partial(self._process.send_signal, signal.SIGCONT)

    def kill_containers(self) -> None:
        self._do(["kill"], self._containers("-q"))

    def clear(self) -> None:
        """No container is left: all of them are the suite's own, and would outlive the engine."""
        self._do(["rm", "-f", "-v"], self._containers("-aq"))

    def _do(self, verb: Sequence[str], containers: Sequence[str]) -> None:
        if containers:
            command = ["docker", "-H", self.host, *verb, *containers]
            subprocess.run(command, capture_output=True, check=False)

    def _containers(self, which: str) -> list[str]:
        command = ["docker", "-H", self.host, "ps", which]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def stop(self) -> None:
        self.end(signal.SIGTERM)
        self.end_shims()
        self.wire.close()

    def end_shims(self) -> None:
        """Of containers that an engine was making when it was killed: none knows of them, and they would stay."""
        address = str(self._containerd.with_name("containerd.sock"))
        for shim in (path for path in Path("/proc").glob("[0-9]*") if address in _read(path / "cmdline").split("\0")):
            made = [child for task in shim.glob("task/*") for child in _read(task / "children").split()]
            for pid in (*made, shim.name):
                _signal(int(pid), signal.SIGKILL)


@dataclass
class Part:
    """A process that is started again whenever it has ended, on a machine of its own."""

    name: str
    command: Sequence[str]
    process: Process
    clock: Clock
    disk: Disk
    since: float = field(default_factory=time.monotonic)
    paused: bool = False
    proxy_paused: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return {**nodes.environment(), "PYTHONPATH": str(self.clock.folder)}

    def send(self, signal_: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal_)

    def send_proxy(self, signal_: int) -> bool:
        """False when it has none."""
        pid = self.proxy()
        _signal(pid, signal_)
        return pid is not None

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task")
        with contextlib.suppress(FileNotFoundError):
            return sorted({int(one) for task in path.iterdir() for one in _read(task / "children").split()})
        return []

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

    def end(self, how: str) -> None:
        """``how``: immediate, or fast, in PostgreSQL's words."""

    def pause(self) -> Callable[[], None]:
        """It does nothing until what is returned is called."""

    def cut(self) -> Callable[[], None]:
        """No server gets at it until what is returned is called."""

    def start(self) -> None: ...


class Sqlite:
    """One file, and nothing that could die by itself."""

    url = None

    def rows(self, server: Path, query: str) -> list[tuple[Any, ...]]:
        path = next(path for path in below(server) if path.suffix in {".sqlite", ".sqlite3"})
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def folders(self) -> list[Path]:
        return []

    def alive(self) -> bool:
        return True

    def end(self, how: str) -> None:
        raise NotImplementedError

    def pause(self) -> Callable[[], None]:
        raise NotImplementedError

    def cut(self) -> Callable[[], None]:
        raise NotImplementedError

    def start(self) -> None:
        """It is the server's own file."""


class World:
    """``heard``: is told of each step of a run, by its phase's name, in the thread that found out.

    ``parallel``: so many runs may go on at a time at each node.
    """

    def __init__(
        self,
        federation: Federation,
        counter: Counter,
        ways: tuple[FaultProxy, FaultProxy],
        database: Database,
        ports: Sequence[int],
        *,
        parallel: int,
    ) -> None:
        self._parallel = parallel
        self.federation = federation
        self.counter = counter
        self.database = database
        self.to_nodes, self.to_clients = ways
        self.folder = Folder(federation.folder)
        state = self.folder.load()
        assert state is not None
        self._state: State = state
        self.server_names = [SERVER, *(f"{SERVER}-{number}" for number in range(2, len(ports) + 1))]
        self.node_names = [name for name in state.processes if name != SERVER]
        self.parts = self._furnish(dict(zip(self.server_names, ports, strict=True)))
        self.organizations = [one["id"] for one in federation.facts["organizations"]]
        self.node_of = dict(zip(self.organizations, self.node_names, strict=True))
        self._closing = threading.Event()
        self._helpers = [
            threading.Thread(target=work, name=work.__name__, daemon=True) for work in (self._keep, self._tail)
        ]
        self._offsets = dict.fromkeys(self.node_names, 0)
        self._tailing = threading.RLock()
        self._logging_in = threading.Lock()
        self.heard: Callable[[str, str, int], None] = lambda *_: None
        federation.facts["server"]["url"] = f"http://127.0.0.1:{self.to_clients.port}"

    def _furnish(self, ports: Mapping[str, int]) -> dict[str, Part]:
        """All parts, ended, each on a machine of its own; the processes of the server share theirs."""
        first = dict(self._state.processes)
        processes.stop(list(first.values()))
        machines = {name: self._furnish_machine(name) for name in (SERVER, *self.node_names)}
        commands = {name: self._command(name, ports.get(name)) for name in (*ports, *self.node_names)}
        return {
            name: Part(name, command, first.get(name, first[SERVER]), *machines[SERVER if name in ports else name])
            for name, command in commands.items()
        }

    def _furnish_machine(self, name: str) -> tuple[Clock, Disk]:
        home, megabytes = (self.folder.server, 128) if name == SERVER else (self._home(name), 64)
        return Clock(self.folder.path / f"clock-{name}"), Disk(home, megabytes)

    def client(self) -> UserClient:
        """One more; all share one login, since a password costs the server a second of its time."""
        facts = self.federation.facts
        keys = {one["id"]: one["private_key_file"] for one in facts["organizations"]}
        client = UserClient("http://127.0.0.1", self.to_clients.port, facts["server"]["api_path"])
        client.resume(self._first.session.tokens.refresh)
        client.setup_encryption(keys[facts["users"][0]["organization_id"]])
        return client

    def log_in_again(self, client: UserClient) -> None:
        """As people do whom a server with a clock that was set has shut out."""
        who = self.federation.facts["users"][0]
        with self._logging_in:
            try:
                client.session.resume(self._first.session.tokens.refresh)
            except AuthenticationError:
                self._first.authenticate(who["username"], who["password"])
                client.session.resume(self._first.session.tokens.refresh)

    def start(self) -> None:
        for helper in self._helpers:
            helper.start()
        end = time.monotonic() + _START_SECONDS
        while not self.has_recovered_wholly and time.monotonic() < end:
            time.sleep(_GLANCE)
        self._first = self.federation.client()

    @contextmanager
    def frozen(self, names: Sequence[str]) -> Iterator[None]:
        """These nodes and their proxies stand still; what they have done until then has been read."""
        stopped = [(self.parts[name], self.parts[name].proxy()) for name in names]
        for part, proxy in stopped:
            part.send(signal.SIGSTOP)
            _signal(proxy, signal.SIGSTOP)
        self.catch_up()
        try:
            yield
        finally:
            for part, proxy in stopped:
                # By its pid: a proxy whose node was killed has to go on, to find that out and end.
                if not part.proxy_paused:
                    _signal(proxy, signal.SIGCONT)
                if not part.paused:
                    part.send(signal.SIGCONT)

    def _home(self, node: str) -> Path:
        return self.folder.node(int(node[5:]))

    def has_recovered(self, name: str) -> bool:
        """Not a node that is still starting."""
        part = self.parts[name]
        ready = name in self.server_names or (self._home(name) / "state" / "ready").exists()
        return part.process.alive() and time.monotonic() - part.since > 1.0 and ready

    @property
    def has_recovered_wholly(self) -> bool:
        return all(self.has_recovered(name) for name in self.parts)

    def catch_up(self) -> None:
        """Reads what the nodes have recorded by now."""
        with self._tailing:
            for name in self.node_names:
                self._read_trail(name)

    def stop_parts(self) -> None:
        self._closing.set()
        for helper in self._helpers:
            helper.join()
        for one in (self.node_names, self.server_names):
            processes.stop([self.parts[name].process for name in one])

    def close(self) -> None:
        """After ``stop_parts``."""
        for disk in {part.disk for part in self.parts.values()}:
            disk.close()

    def _command(self, name: str, port: int | None) -> list[str]:
        if port is not None:
            config = str(next(self.folder.server.glob("*.yaml")))
            return [str(SKERRY), "server", "start", "--config", config, "--port", str(port)]
        return [str(SKERRY), "node", "start", "--config", str(self._home(name) / "node.yaml")]

    def _keep(self) -> None:
        while not self._closing.wait(_GLANCE):
            for name, part in self.parts.items():
                if not part.process.alive():
                    self._start_again(name, part)

    def _start_again(self, name: str, part: Part) -> None:
        if name in self.node_names:
            (self._home(name) / "state" / "ready").unlink(missing_ok=True)
        if self._closing.wait(random.uniform(0, 0.1)):  # noqa: S311
            return
        part.process = processes.start(part.command, self.folder.log(name), part.environment)
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
        return self._home(name) / "state" / "audit" / "audit.jsonl"

    # --- what was recorded -------------------------------------------------------------------------------

    def read_history(self, canary: str, **known: Any) -> History:
        """After ``stop_parts``. ``known`` is what the driver itself recorded."""
        rows = partial(self.database.rows, self.folder.server)
        tasks = [TaskRow(*row) for row in rows("SELECT id, name, parent_id FROM task")]
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
            places=dict.fromkeys(self.node_names, self._parallel),
            **known,
        )

    def is_quiet(self) -> bool:
        """No run is open, and no node has anything left to do."""
        [(open_,)] = self.database.rows(self.folder.server, f"SELECT count(*) FROM run WHERE state IN {_OPEN}")  # noqa: S608
        homes = (self._home(name) for name in self.node_names)
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
        homes = [self._home(name) for name in self.node_names]
        for folder in (self.folder.server, self.folder.logs, *homes, *self.database.folders()):
            yield from (str(path) for path, content in contents(folder) if canary.encode() in content)

    def _left(self) -> Iterator[str]:
        for name in self.node_names:
            home = self._home(name)
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


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _signal(pid: int | None, signal_: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_)


def _is_zombie(pid: str) -> bool:
    return ") Z " in _read(Path(f"/proc/{pid}/stat"))


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
def server_settings(lines: str) -> Iterator[None]:
    """A server that ``skerry dev`` founds meanwhile has these, too; it knows of none but SQLite and one process."""
    original = bringing_up._run

    def run(folder: Folder, state: State, arguments: Sequence[str], words: str = "") -> None:
        original(folder, state, arguments, words)
        if tuple(arguments[:2]) == ("server", "new"):
            with next(folder.server.glob("*.yaml")).open("a") as file:
                file.write(lines)

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
    engine: str | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[World]:
    """A federation with a fault proxy before its server for nodes, and one for users; HAProxy before replicas.

    ``engine``: where nodes find it, if not at DOCKER_HOST.
    """
    ports, database = [choose_port(None) for _ in range(replicas)], database or Sqlite()
    with ExitStack() as ended:
        before = ports[0]
        if replicas > 1:
            before = ended.enter_context(balancer(Path(ended.enter_context(TemporaryDirectory())), ports))
        ways = (FaultProxy(before), FaultProxy(before))
        for way in ways:
            ended.callback(way.close)
            way.start()
        made: list[World] = []
        counter = Counter(lambda kind, run: made[0].heard("", f"counter.{kind}", run) if made else None)
        ended.callback(counter.close)
        settings: dict[str, Any] = {
            "server": {"url": f"http://127.0.0.1:{ways[0].port}"},
            "gates": [{"name": "counter", "destination": f"127.0.0.1:{counter.server_address[1]}"}],
            "limits": {"parallel_runs": parallel},
        }
        if host := engine or os.environ.get("DOCKER_HOST"):
            settings["docker"] = {"host": host}
        plan = Plan(name=name, nodes=count, launcher="docker", port=ports[0], node_settings=settings)
        lines = 'trusted_proxies: ["127.0.0.1"]\n' if replicas > 1 else ""
        with server_settings(lines + (f"database: {json.dumps(database.url)}\n" if database.url else "")):
            federation = up(plan, Places.of_user(), say)
        ended.callback(remove_clocks)
        ended.callback(down, name, Places.of_user(), say)
        made.append(World(federation, counter, ways, database, ports, parallel=parallel))
        ended.callback(made[0].close)
        ended.callback(made[0].stop_parts)
        made[0].start()
        yield made[0]
