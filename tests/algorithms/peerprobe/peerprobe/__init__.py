"""An algorithm for the acceptance tests of the VPN: looks for its peers, and for what it must not reach."""

from __future__ import annotations

import fcntl
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from skerry import AlgorithmClient, central, info, partial
from skerry.errors import AlgorithmError

PORT, HIDDEN = 8888, 9999
PATIENCE, BRIEF = 120.0, 2.0
TALKING = "They talk."
_SIOCSIFFLAGS = 0x8914
_QUERIES: dict[str, dict[str, Any]] = {
    "none": {},
    "only_children": {"only_children": True},
    "only_self": {"only_self": True},
    "only_siblings": {"only_siblings": True},
    "only_parent": {"only_parent": True},
    "include_parent": {"include_parent": True},
    "include_children": {"include_children": True},
    "label": {"label": "peerprobe"},
    "no such label": {"label": "another"},
    "only_children, label": {"only_children": True, "label": "peerprobe"},
    "only_siblings, no such label": {"only_siblings": True, "label": "another"},
    "both includes": {"include_parent": True, "include_children": True},
    "only_self, include_parent": {"only_self": True, "include_parent": True},
    "only_siblings, include_children": {"only_siblings": True, "include_children": True},
}
_HELPERS = ("get_child_addresses", "get_parent_address", "get_sibling_addresses", "get_own_address")


@central
def queries(client: AlgorithmClient, organizations: list[int]) -> dict[str, Any]:
    """The organizations that each query names: here, and in the child at the second organization."""
    task = client.task.create(input_={"method": "child_queries"}, organizations=organizations)
    client.vpn.wait_for(organizations, children=True)
    parent = _all_queries(client)
    for [row] in client.vpn.wait_for(organizations, children=True).values():
        assert _reaches(row["ip"], PORT, PATIENCE)
    parts = client.wait_for_results(task["id"])
    return {"parent": parent, "child": next(part for part in parts if part["at"] == organizations[1])["found"]}


@central
def child_queries(client: AlgorithmClient) -> dict[str, Any]:
    peers = client.vpn.wait_for()
    found = _all_queries(client)
    _meet(client, list(peers))
    return {"at": client.organization_id, "found": found}


def _all_queries(client: AlgorithmClient) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: _organizations(client, client.vpn.get_addresses(**_QUERIES[name])) for name in _QUERIES
    }
    found |= {name: _organizations(client, getattr(client.vpn, name)()) for name in _HELPERS}
    refused = client.vpn.get_addresses(only_self=True, only_children=True)
    assert isinstance(refused, dict), refused
    return {**found, "two only": "only specify one" in refused["message"]}


def _meet(client: AlgorithmClient, organizations: list[int]) -> None:
    """Nobody leaves before all have looked: each hears of all others and of the parent, which look first."""
    peers = client.vpn.wait_for(organizations)
    others = [rows[0]["ip"] for organization, rows in peers.items() if organization != client.organization_id]
    [parent] = client.vpn.get_addresses(only_parent=True)
    awaited = {*others, parent["ip"]}
    with socket.create_server(("", PORT)) as listener:
        listener.settimeout(PATIENCE)
        caller = threading.Thread(target=lambda: [_reaches(host, PORT, PATIENCE) for host in others])
        caller.start()
        while awaited:
            connection, (host, _) = listener.accept()
            connection.close()
            awaited.discard(host)
        caller.join()


def _organizations(client: AlgorithmClient, found: Any) -> list[int]:
    assert isinstance(found, list), found
    assert all(row["ip"] and row["port"] == PORT and row["label"] == "peerprobe" for row in found)
    assert all(set(row) == {"ip", "port", "label", "organization_id", "task_id", "parent_id"} for row in found)
    return [row["organization_id"] for row in found]


@central
def surroundings(client: AlgorithmClient, organizations: list[int]) -> dict[str, Any]:
    """What can be reached and done from here, with a child that listens."""
    task = client.task.create(input_={"method": "serve"}, organizations=organizations[:1])
    [[address]] = client.vpn.wait_for(organizations[:1], children=True).values()
    peer = address["ip"]
    seen = {
        "tcp": _reaches(peer, PORT, PATIENCE),
        "undeclared": _reaches(peer, HIDDEN, BRIEF),
        "host": any(_reaches(host, port, BRIEF) for host in ("172.17.0.1", "192.0.2.1") for port in (22, 5000)),
        "subnet's first": _reaches("10.76.255.254", PORT, BRIEF),
        "metadata": _reaches("169.254.169.254", 80, BRIEF),
        "internet": _reaches("1.1.1.1", 443, BRIEF),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "changing the interface": _try(_take_down),
        "reading the configuration": _try(lambda: list(Path("/var/run/wireguard").iterdir())),
        "udp": _echoes(peer, PORT),
    }
    client.wait_for_results(task["id"])
    return seen


@partial
def serve() -> dict[str, Any]:
    """Listens on a declared and an undeclared port, until it is asked by UDP."""
    with (
        socket.create_server(("", PORT)),
        socket.create_server(("", HIDDEN)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.settimeout(PATIENCE)
        datagrams.bind(("", PORT))
        question, caller = datagrams.recvfrom(100)
        datagrams.sendto(question, caller)
    return {}


@partial
def hold(seconds: float) -> dict[str, Any]:
    """Listens, for those who must not come."""
    with socket.create_server(("", PORT)):
        time.sleep(seconds)
    return {}


@central
def sweep(client: AlgorithmClient, port: int) -> dict[str, Any]:
    """Tries the first addresses of the VPN, its own aside."""
    own = {row["ip"] for row in client.vpn.get_own_address()}
    known = [
        row for row in client.vpn.get_addresses(include_children=True, include_parent=True) if row["ip"] not in own
    ]
    hosts = [f"10.76.0.{number}" for number in range(1, 16)]
    return {"known": known, "reached": [host for host in hosts if host not in own and _reaches(host, port, BRIEF)]}


@central
def reach(client: AlgorithmClient, targets: list[list[Any]]) -> dict[str, bool]:
    """Which of these hosts and ports answer by TCP, with the run's interface up."""
    assert client.vpn.get_own_address()
    return {f"{host}:{port}": _reaches(host, port, BRIEF) for host, port in targets}


@central
def steady(
    client: AlgorithmClient, organization: int, seconds: float, marker: str = "", patience: float = 120.0
) -> dict[str, Any]:
    """Exchanges numbered lines with a child at the organization, over one connection, for so long."""
    task = client.task.create(input_={"method": "echo"}, organizations=[organization])
    [[address]] = client.vpn.wait_for([organization], children=True).values()
    with client.vpn.connect(address, patience) as connection, connection.makefile("rwb") as stream:
        connection.settimeout(PATIENCE)
        end, rounds, longest = time.monotonic() + seconds, 0, 0.0
        while time.monotonic() < end:
            began, line = time.monotonic(), f"{marker}{rounds}\n".encode()
            stream.write(line)
            stream.flush()
            assert stream.readline() == line
            if rounds == 0:
                info(TALKING)
            rounds, longest = rounds + 1, max(longest, time.monotonic() - began)
            time.sleep(0.02)
    client.wait_for_results(task["id"])
    return {"rounds": rounds, "longest": longest}


@partial
def echo() -> dict[str, Any]:
    """Sends each line of one connection back."""
    with socket.create_server(("", PORT)) as listener:
        listener.settimeout(PATIENCE)
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                stream.write(line)
                stream.flush()
    return {}


@central
def look_for_one_that_left(client: AlgorithmClient, organization: int) -> dict[str, str]:
    """What is said of a child that has ended, and then of a sibling that has."""
    child = client.task.create(input_={"method": "leave", "kwargs": {"looker": 0}}, organizations=[organization])
    client.wait_for_results(child["id"])
    said = _said_of(client, organization, children=True)
    both = [client.organization_id, organization]
    kwargs = {"looker": client.organization_id, "leaver": organization}
    siblings = client.task.create(input_={"method": "leave", "kwargs": kwargs}, organizations=both)
    return {"child": said, "sibling": client.wait_for_results(siblings["id"])[0]["said"]}


@central
def leave(client: AlgorithmClient, looker: int, leaver: int = 0) -> dict[str, str]:
    return {"said": _said_of(client, leaver, children=False) if client.organization_id == looker else ""}


def _said_of(client: AlgorithmClient, organization: int, *, children: bool) -> str:
    while True:
        try:
            client.vpn.wait_for([organization], children=children)
        except AlgorithmError as error:
            return str(error)
        time.sleep(0.1)


@central
def alone(client: AlgorithmClient) -> dict[str, Any]:
    return {"interfaces": sorted(name for _, name in socket.if_nameindex()), "addresses": client.vpn.get_addresses()}


def _reaches(host: str, port: int, timeout: float) -> bool:
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), max(0.1, end - time.monotonic())).close()
        except ConnectionRefusedError:  # a peer that does not listen yet
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        except OSError:
            return False
        else:
            return True


def _echoes(host: str, port: int) -> bool:
    """Asked again where a datagram was lost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        for _ in range(12):
            datagrams.sendto(b"hello", (host, port))
            try:
                return datagrams.recvfrom(100) == (b"hello", (host, port))
            except OSError:
                continue
    return False


def _try(deed: Any) -> str:
    try:
        deed()
    except OSError as error:
        return type(error).__name__
    return "done"


def _take_down() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"wg0", 0))
