"""How fast two containers talk over the VPN, beside WireGuard between their hosts without containers, and the raw link.

Two network namespaces, joined by a veth link, are the hosts. All three ways carry the same two conversations, one
after the other in each of several rounds, so that what else the machine does hits all of them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from skerry.keys import Identity
from skerry.peering import Peer, sign_peer
from skerry_node import vpn
from skerry_node.config import VpnSettings
from skerry_node.namespace import inside, open_of
from skerry_node.vpn import Place, Tunnel
from skerry_node.wireguard import Interface, Remote

ROUNDS, SECONDS, ECHOES = 5, 1.5, 1000
IMAGE = "skerry/algorithm-base"
PORT, UDP_PORT, MTU = 8888, 51820, 1420
LINK = ipaddress.IPv4Network("192.0.2.0/24")
HOSTS, RUNS = ipaddress.IPv4Network("10.77.0.0/24"), ipaddress.IPv4Network("10.78.0.0/24")

TALK = """
import json, socket, statistics, sys, time
role, host, port, seconds, echoes = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
if role == "listen":
    with socket.create_server((host, port)) as listener:
        print("ready", flush=True)
        stream, _ = listener.accept()
        size = 0
        while piece := stream.recv(1 << 20):
            size += len(piece)
        stream.sendall(str(size).encode())
        stream.close()
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while piece := stream.recv(64):
            stream.sendall(piece)
else:
    block, times = bytes(1 << 18), []
    with socket.create_connection((host, port), 30) as stream:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            stream.sendall(block)
        stream.shutdown(socket.SHUT_WR)
        size = int(stream.recv(100))
        took = time.perf_counter() - began
    with socket.create_connection((host, port), 30) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(echoes):
            sent = time.perf_counter()
            stream.sendall(b"x" * 64)
            stream.recv(64)
            times.append(time.perf_counter() - sent)
    print(json.dumps([size * 8 / took / 1e6, statistics.median(times) * 1e6]))
"""


@dataclass(frozen=True)
class Side:
    """Where one side of a conversation is: what starts a Python there, and its address."""

    python: list[str]
    address: str


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def hosts() -> Iterator[list[str]]:
    names = [f"skb{os.getpid()}-{end}" for end in "ab"]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, start=1):
            run("ip", "-n", name, "addr", "add", f"{LINK[number]}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def there(host: str, work: Callable[[], Any]) -> Any:
    descriptor = os.open(f"/run/netns/{host}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return inside(descriptor, work)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def raw(names: list[str]) -> Iterator[list[Side]]:
    yield [Side(on_host(name), str(LINK[number])) for number, name in enumerate(names, start=1)]


@contextlib.contextmanager
def between_hosts(names: list[str]) -> Iterator[list[Side]]:
    """WireGuard as an administrator sets it up, by the same driver."""
    driver = vpn.choose_driver()
    made = [
        there(name, lambda number=number: driver.make(f"skb{number}", UDP_PORT - 1)) for number, name in _each(names)
    ]
    try:
        for number, name in _each(names):
            other = 3 - number
            remote = Remote(made[other - 1].public_key, (str(LINK[other]), UDP_PORT - 1), HOSTS[other])
            there(name, lambda number=number, remote=remote: made[number - 1].set_peers([remote]))
            run("ip", "-n", name, "link", "set", f"skb{number}", "mtu", str(MTU), "up")
            run("ip", "-n", name, "addr", "add", f"{HOSTS[number]}/24", "dev", f"skb{number}")
        yield [Side(on_host(name), str(HOSTS[number])) for number, name in _each(names)]
    finally:
        for number, name in _each(names):
            there(name, made[number - 1].close)


def _make(name: str) -> Interface:
    return vpn.choose_driver().make(name, UDP_PORT - 1)


@contextlib.contextmanager
def between_containers(names: list[str]) -> Iterator[list[Side]]:
    """Containers without a network or a capability, with a tunnel each as a node makes them."""
    with contextlib.ExitStack() as stack:
        tunnels, places = [], []
        for number, name in _each(names):
            container = run(
                "docker", "run", "-d", "--network=none", "--cap-drop=ALL", "--entrypoint=sleep", IMAGE, "600"
            )
            stack.callback(run, "docker", "rm", "-f", container)
            pid = int(run("docker", "inspect", "-f", "{{.State.Pid}}", container))
            place = Place(open_of(pid), RUNS[number], RUNS, {PORT: None})
            settings = VpnSettings(endpoint=str(LINK[number]), mtu=MTU)
            tunnel = there(name, lambda n=number, p=place, s=settings: Tunnel(f"skc{n}", p, s, UDP_PORT))
            stack.callback(tunnel.close)
            tunnels.append(tunnel)
            places.append(Side(["docker", "exec", container, "python3"], str(RUNS[number])))
        for number, name in _each(names):
            other = 3 - number
            there(name, lambda n=number, o=other: _admit(tunnels[n - 1], tunnels[o - 1], o))
        yield places


def _admit(tunnel: Tunnel, other: Tunnel, number: int) -> None:
    numbers = {"run": number, "attempt": 1, "collaboration": 1, "organization": number, "created": 1, "job": "bench"}
    tunnel.admit([Peer.parse(sign_peer(Identity.generate(), {**other.describe(), **numbers}))], "bench")


def on_host(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}", sys.executable]


def talk(places: list[Side]) -> tuple[float, float]:
    """Megabits a second, and microseconds for a round trip."""
    listener, caller = places
    what = [listener.address, str(PORT), str(SECONDS), str(ECHOES)]
    with subprocess.Popen([*listener.python, "-c", TALK, "listen", *what], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        megabits, microseconds = json.loads(run(*caller.python, "-c", TALK, "call", *what))
    return megabits, microseconds


def _each(names: list[str]) -> Iterator[tuple[int, str]]:
    return iter(list(enumerate(names, start=1)))


def main() -> None:
    ways = {"link": raw, "hosts": between_hosts, "containers": between_containers}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with hosts() as names, contextlib.ExitStack() as stack:
        places = {name: stack.enter_context(make(names)) for name, make in ways.items()}
        for _ in range(ROUNDS):
            for name, ends in places.items():
                seen[name].append(talk(ends))
    report({name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in seen.items()})


def report(medians: dict[str, list[float]]) -> None:
    print(f"{'':<12}{'Mbit/s':>9}{'round trip':>12}   us, medians of {ROUNDS}; {vpn.choose_driver().name}, MTU {MTU}")
    for name, (megabits, microseconds) in medians.items():
        print(f"{name:<12}{megabits:>9.0f}{microseconds:>12.0f}")
    for what, unit, column in (("vpn_throughput", "Mbit/s", 0), ("vpn_round_trip", "us", 1)):
        value, reference = medians["containers"][column], medians["hosts"][column]
        line = {
            "name": what,
            "value": round(value, 1),
            "unit": unit,
            "reference": "WireGuard between the hosts",
            "reference_value": round(reference, 1),
            "ratio": round(value / reference, 3),
            "raw_link": round(medians["link"][column], 1),
            "n": ROUNDS,
        }
        print(f"bench: {json.dumps(line)}")


if __name__ == "__main__":
    main()
