"""Three hospitals on one machine: a network namespace with an engine and a node of its own each, and what is between.

Two are reached from outside. The third is behind a router that masks it, changes its ports, and lets UDP out to the
relay alone. The server is in none of them: each node reaches it by a line of its own, which a cut of the network
between the hospitals leaves alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from skerry import UserClient
from skerry.dev import founding, nodes, processes
from skerry.dev.connection import API_PATH, Connection
from skerry.dev.folder import Folder
from skerry.dev.leftovers import mounts_below
from skerry.dev.plan import Plan, parse_database
from skerry.dev.processes import Process
from skerry.errors import InvalidInput, ServerUnreachable
from skerry.keys import Identity
from skerry_node.namespace import inside, listen

SKERRY = Path(sys.executable).with_name("skerry")
RELAY, RELAY_PORT = "192.0.2.9", 51819
SO_RCVBUFFORCE = 33
"""From Linux's socket.h: beyond the bound that is set for users."""
ADDRESSES = ("192.0.2.11", "192.0.2.12", "10.13.0.2")
NAMES = ("north", "south", "hidden")
PATIENCE = 120.0
_ROUTER_RULES = """
table ip nat { chain out { type nat hook postrouting priority 100; oifname "wan" masquerade random; }; }
table ip wall { chain forward { type filter hook forward priority 0; policy drop;
ct state established,related accept; iifname "lan" ip daddr %s udp dport %d accept; }; }
"""


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Space:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def enter(self, *command: str) -> list[str]:
        """Not ``ip netns exec``, which hides the groups of processes that an engine needs."""
        return [shutil.which("nsenter") or "nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, **options: Any) -> str:
        return run(*self.enter(*command), **options)

    def do(self, work: Callable[[], Any]) -> Any:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return inside(descriptor, work)
        finally:
            os.close(descriptor)

    def set_link(self, state: str, name: str = "eth0") -> None:
        self.run("ip", "link", "set", name, state)
        if state == "up" and self.name.endswith("hidden"):
            self.run("ip", "route", "replace", "default", "via", "10.13.0.1")


@contextlib.contextmanager
def network() -> Iterator[dict[str, Space]]:
    """The namespaces, joined; ``wan`` is where the relay stands, and what the others know as the internet."""
    tag = f"sk{os.getpid()}"
    spaces = {name: Space(f"{tag}-{name}") for name in ("wan", "router", *NAMES)}
    try:
        for space in spaces.values():
            run("ip", "netns", "add", space.name)
            space.run("ip", "link", "set", "lo", "up")
        _join(spaces)
        yield spaces
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space.name], capture_output=True, check=False)


def _join(spaces: dict[str, Space]) -> None:
    wan, router, hidden = spaces["wan"], spaces["router"], spaces["hidden"]
    wan.run("ip", "link", "add", "br0", "type", "bridge")
    wan.run("ip", "addr", "add", f"{RELAY}/24", "dev", "br0")
    wan.run("ip", "link", "set", "br0", "up")
    ends = [
        (spaces["north"], "eth0", ADDRESSES[0]),
        (spaces["south"], "eth0", ADDRESSES[1]),
        (router, "wan", "192.0.2.13"),
    ]
    for space, link, address in ends:
        port = f"to-{space.name.rpartition('-')[2]}"
        wire = ["ip", "link", "add", port, "netns", wan.name, "type", "veth", "peer", "name", link, "netns", space.name]
        run(*wire)
        wan.run("ip", "link", "set", port, "master", "br0", "up")
        _address(space, link, address)
    run("ip", "link", "add", "lan", "netns", router.name, "type", "veth", "peer", "name", "eth0", "netns", hidden.name)
    _address(router, "lan", "10.13.0.1")
    _address(hidden, "eth0", ADDRESSES[2])
    hidden.run("ip", "route", "add", "default", "via", "10.13.0.1")
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    router.run("nft", "-f", "-", input=_ROUTER_RULES % (RELAY, RELAY_PORT))


def _address(space: Space, link: str, address: str) -> None:
    space.run("ip", "addr", "add", f"{address}/24", "dev", link)
    space.run("ip", "link", "set", link, "up")


class Line:
    """The way of a namespace to the server: its loopback's port leads to that of the machine."""

    def __init__(self, space: Space, port: int) -> None:
        self._port = port
        self._listener: socket.socket = space.do(lambda: listen(port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    near, _ = self._listener.accept()
                except OSError:
                    return
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Capture:
    """All that passes a link of a namespace, from now until the block ends."""

    def __init__(self, space: Space | None, link: str) -> None:
        def open_() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            made.bind((link, 0))
            made.settimeout(0.2)
            return made

        self._socket: socket.socket = open_() if space is None else space.do(open_)
        self._frames: list[bytes] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        """What had come by the end is read, however busy the machine is: nothing may have been overlooked."""
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                self._frames.append(self._socket.recv(1 << 16))
        self._socket.settimeout(0.0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._frames.append(self._socket.recv(1 << 16))

    def shows(self, text: bytes) -> bool:
        return any(text in frame for frame in self._frames)

    def udp(self, port: int) -> list[bytes]:
        """What was sent by UDP to this port over IPv4."""
        found = []
        for frame in self._frames:
            size = (frame[14] & 15) * 4 if frame[12:14] == b"\x08\x00" else 0
            if size and frame[23] == socket.IPPROTO_UDP and frame[16 + size : 18 + size] == port.to_bytes(2, "big"):
                found.append(frame[22 + size :])
        return found


@dataclass
class Hospital:
    """One of them: its engine, and its node, which can be ended and started again."""

    number: int
    space: Space
    folder: Folder
    home: Path
    engine: subprocess.Popen[bytes] | None = None
    node: Process | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.home}/d.sock"

    def docker(self, *arguments: str) -> str:
        return run("docker", "-H", self.host, *arguments)

    def start_engine(self) -> None:
        """With no bridge and no rules: nothing in it is to have a network."""
        self.home.mkdir()
        settings = ["-H", self.host, "--data-root", f"{self.home}/data", "--exec-root", f"{self.home}/exec"]
        alone = ["--pidfile", f"{self.home}/pid", "--bridge=none", "--iptables=false", "--ip-forward=false"]
        log = (self.home / "log").open("wb")
        empty = self.home / "daemon.json"
        empty.write_text("{}")
        command = self.space.enter("dockerd", "--config-file", str(empty), *settings, *alone)
        self.engine = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        _await(self._answers)

    def _answers(self) -> bool:
        asked = ["docker", "-H", self.host, "version"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def start_node(self) -> None:
        config = str(self.folder.node(self.number) / "node.yaml")
        command = self.space.enter(str(SKERRY), "node", "start", "--config", config)
        self.node = processes.start(command, self.folder.log(f"node-{self.number}"), nodes.environment())

    def kill_node(self) -> None:
        assert self.node is not None
        os.kill(self.node.pid, signal.SIGKILL)
        _await(lambda: self.node is not None and not self.node.alive())

    def check_node(self) -> str:
        config = str(self.folder.node(self.number) / "node.yaml")
        return self.space.run(
            str(SKERRY), "node", "check", "--config", config, env={**nodes.environment(), "COLUMNS": "300"}
        )

    def wireguards(self) -> list[int]:
        """The processes of this namespace that carry interfaces."""
        wanted = self.space.path.stat().st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip() == "wireguard-go" and (
                    entry / "ns/net"
                ).stat().st_ino == wanted:
                    found.append(int(entry.name))
        return found

    def wait_until_alone(self) -> None:
        """Until no run has an interface, or a port, any more."""
        _await(lambda: not self.wireguards())

    def stop(self) -> None:
        if self.node is not None:
            processes.stop([self.node])
        if self.engine is None:
            return
        left = self.docker("ps", "-aq").split()
        if left:
            self.docker("rm", "-f", *left)
        self.engine.terminate()
        self.engine.wait(60)


@dataclass
class Hospitals:
    """The federation of the three."""

    spaces: dict[str, Space]
    folder: Folder
    hospitals: list[Hospital]
    port: int
    founded: founding.Founded | None = None
    parts: list[Process] = field(default_factory=list)

    @property
    def organization_ids(self) -> list[int]:
        assert self.founded is not None
        return [member.organization["id"] for member in self.founded.members]

    def client(self) -> UserClient:
        """Of the first organization's researcher."""
        assert self.founded is not None
        client = UserClient("http://127.0.0.1", self.port, API_PATH)
        who = self.founded.members[0].researcher
        client.authenticate(who["username"], who["password"])
        client.setup_encryption(str(self.folder.key(1)))
        return client

    def create(self, image: str, organizations: list[int], method: str, /, **kwargs: Any) -> Any:
        assert self.founded is not None
        return self.client().task.create(
            organizations=organizations,
            name=method,
            image=image,
            collaboration=self.founded.collaboration["id"],
            input_={"method": method, "kwargs": kwargs},
            databases=[{"label": "default"}],
        )

    def ask(self, image: str, organizations: list[int], method: str, /, **kwargs: Any) -> list[Any]:
        return list(self.create(image, organizations, method, **kwargs).wait(timeout=240).results())

    def wait_for_child(self, task: int, count: int = 1) -> None:
        """Until so many runs of its children are under way."""
        client = self.client()

        def there() -> bool:
            status = client.task.get(task)["status"]
            assert status in {"pending", "initializing", "active"}, [
                r["log"] for r in client.run.list(task=task)["data"]
            ]
            children = client.request("task", params={"parent_id": task})["data"]
            runs = [run for child in children for run in client.run.list(task=child["id"])["data"]]
            return len([run for run in runs if run["status"] == "active"]) >= count

        _await(there)

    def kill(self, task: int) -> None:
        """Where it has not ended by itself."""
        with contextlib.suppress(InvalidInput):
            self.client().task.kill(task)

    def addresses(self) -> list[str]:
        """Of the runs that are in the VPN now, as the server gave them."""
        with contextlib.closing(sqlite3.connect(self.folder.server / "skerry.sqlite")) as database:
            return [address for (address,) in database.execute("SELECT address FROM peer ORDER BY id")]

    def tell_logs(self) -> str:
        """The ends of what the nodes and the relay wrote."""
        parts = [*(f"node-{hospital.number}" for hospital in self.hospitals), "relay"]
        return "\n".join(
            line for part in parts for line in [f"{part}:", *self.folder.log(part).read_text().splitlines()[-60:]]
        )

    def load(self, images: Sequence[str]) -> None:
        """From the tests' engine to those of the hospitals."""
        file = self.folder.path / "images.tar"
        run("docker", "save", "-o", str(file), *images)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.docker("load", "-i", str(file)), self.hospitals))
        file.unlink()


@contextlib.contextmanager
def hospitals(home: Path, images: Sequence[str], tables: Sequence[Path]) -> Iterator[Hospitals]:
    """The federation, with its nodes online; ``home`` is where its state goes, ``tables`` what each has as default."""
    engines = Path(tempfile.mkdtemp(prefix="skerry-hospitals-", dir="/var/lib"))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, engines)
        spaces = stack.enter_context(network())
        folder = Folder(home / "hospitals")
        stack.callback(_remove, folder.path)
        folder.make()
        made = [Hospital(n, spaces[name], folder, engines / name) for n, name in enumerate(NAMES, start=1)]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        federation = Hospitals(spaces, folder, made, port)
        stack.callback(lambda: processes.stop(federation.parts))
        stack.callback(_stop, made)
        with ThreadPoolExecutor() as pool:
            started = [pool.submit(hospital.start_engine) for hospital in made]
            _found(federation, tables, [pool.submit(Identity.generate) for _ in made])
            for one in started:
                one.result()
        federation.load(images)
        for hospital in made:
            stack.callback(Line(hospital.space, port).close)
            hospital.start_node()
        _await(lambda: _online(federation) == len(made))
        yield federation


def _stop(made: Sequence[Hospital]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(Hospital.stop, made))


def _found(federation: Hospitals, tables: Sequence[Path], identities: Sequence[Future[Identity]]) -> None:
    folder, password = federation.folder, founding.new_password()
    database = parse_database(f"default={','.join(map(str, tables))}", len(NAMES))
    plan = Plan("hospitals", len(NAMES), (database,), launcher="docker")
    run(str(SKERRY), "server", "new", str(folder.server))
    config = str(next(folder.server.glob("*.yaml")))
    names = ["--organization", founding.organization_name(1), "--username", founding.ROOT]
    run(str(SKERRY), "server", "bootstrap", "--config", config, *names, input=f"{password}\n")
    _start(federation, "server", [str(SKERRY), "server", "start", "--config", config, "--port", str(federation.port)])
    relay = folder.path / "relay"
    command = [str(SKERRY), "relay", str(relay), "--address", f"{RELAY}:{RELAY_PORT}"]
    _start(federation, "relay", federation.spaces["wan"].enter(*command))
    url = f"http://127.0.0.1:{federation.port}"
    with contextlib.closing(Connection(url)) as connection:
        _await(lambda: _answers(connection))
        connection.log_in(founding.ROOT, password)
        keys = [made.result() for made in identities]
        for number, key in enumerate(keys, start=1):
            key.save(folder.key(number))
        federation.founded = founding.found(connection, plan, keys)
    _await(lambda: "public_key" in folder.log("relay").read_text())
    for number, member in enumerate(federation.founded.members, start=1):
        nodes.write(folder, plan, number, nodes.Post(member.node["name"], member.node["api_key"], url), Path("/none"))
        _settle(federation, number)


def _settle(federation: Hospitals, number: int) -> None:
    """What is particular of one hospital."""
    path = federation.folder.node(number) / "node.yaml"
    settings = json.loads(path.read_text())
    settings["docker"] = {"host": federation.hospitals[number - 1].host, "pull": "never", "holder_pool": 1}
    settings["policies"]["vpn"] = "allow"
    settings["vpn"] = {"endpoint": ADDRESSES[number - 1]}
    if NAMES[number - 1] == "hidden":
        said = federation.folder.log("relay").read_text()
        key = said.partition("public_key: ")[2].partition(",")[0]
        secret = str(federation.folder.path / "relay" / "relay-secret")
        settings["vpn"] = {"relay": {"endpoint": f"{RELAY}:{RELAY_PORT}", "public_key": key, "secret_file": secret}}
    path.write_text(json.dumps(settings))


def _start(federation: Hospitals, part: str, command: list[str]) -> None:
    federation.parts.append(processes.start(command, federation.folder.log(part), nodes.environment()))


def _answers(connection: Connection) -> bool:
    try:
        connection.get("version")
    except ServerUnreachable:
        return False
    return True


def _online(federation: Hospitals) -> int:
    for hospital in federation.hospitals:
        assert hospital.node is not None
        assert hospital.node.alive(), federation.folder.log(f"node-{hospital.number}").read_text()[-2000:]
    assert federation.founded is not None
    found = federation.client().node.list(collaboration=federation.founded.collaboration["id"])["data"]
    return len([node for node in found if node["status"] == "online"])


def _await(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, "this does not come about"
        time.sleep(0.1)


def _remove(path: Path) -> None:
    for mount in sorted(mounts_below(path), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)
