"""What the kernel's WireGuard is told, where and in which order. No kernel here answers: see the page on the VPN."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyroute2
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import wgmsg

from skerry.wire import b64
from skerry_node import vpn, wireguard, wireguard_go, wireguard_kernel
from skerry_node.launchers.launcher import LauncherError
from skerry_node.wireguard import Known, Remote
from skerry_node.wireguard_kernel import KernelDriver, KernelInterface

pytestmark = pytest.mark.unit
NAMESPACE = 99
ADDRESS, SUBNET = ipaddress.IPv4Address("10.76.0.1"), ipaddress.IPv4Network("10.76.0.0/16")
PEER = Remote(b"p" * 32, ("192.0.2.7", 51820), ipaddress.IPv4Address("10.76.0.2"))
CALLER = Remote(b"c" * 32, None, ipaddress.IPv4Address("10.76.0.3"))
RELAY = Remote(b"r" * 32, ("192.0.2.9", 51819), None, b"s" * 32)


@dataclass
class Kernel:
    """Keeps the calls, each with the namespace in which it was made."""

    calls: list[tuple[str, Any, Any]] = field(default_factory=list)
    links: dict[str, dict[str, int]] = field(default_factory=lambda: {"node": {}, "run": {}})
    told: list[Any] = field(default_factory=list)
    refuses: bool = False
    here: str = "node"

    def inside(self, namespace: int, work: Callable[[], Any]) -> Any:
        assert namespace == NAMESPACE
        self.here = "run"
        try:
            return work()
        finally:
            self.here = "node"


class Fake:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FakeRoute(Fake):
    def link(self, verb: str, **what: Any) -> None:
        kernel = self.kernel
        kernel.calls.append((kernel.here, f"link {verb}", what))
        links = kernel.links[kernel.here]
        if verb == "add":
            if kernel.refuses:
                raise NetlinkError(95, "Operation not supported")
            assert what["kind"] == "wireguard"
            links[what["ifname"]] = 7
        elif verb == "del":
            kernel.links[kernel.here] = {name: index for name, index in links.items() if index != what["index"]}
        elif "net_ns_fd" in what:
            kernel.links["run"] |= links
            kernel.links["node"] = {}
        elif "ifname" in what:
            kernel.links[kernel.here] = {what["ifname"]: what["index"]}

    def link_lookup(self, ifname: str) -> list[int]:
        index = self.kernel.links[self.kernel.here].get(ifname)
        return [] if index is None else [index]

    def addr(self, verb: str, **what: Any) -> None:
        self.kernel.calls.append((self.kernel.here, f"addr {verb}", what))

    def route(self, verb: str, **what: Any) -> None:
        self.kernel.calls.append((self.kernel.here, f"route {verb}", what))


class FakeWireGuard(Fake):
    def set(self, name: str, **what: Any) -> None:
        kernel = self.kernel
        if name not in kernel.links[kernel.here]:
            raise NetlinkError(19, "No such device")
        _encode(name, what)
        kernel.calls.append((kernel.here, f"set {name}", what))

    def info(self, name: str) -> list[Any]:
        assert name in self.kernel.links[self.kernel.here]
        return self.kernel.told


def _encode(name: str, what: dict[str, Any]) -> wgmsg:
    """As pyroute2 writes it for the kernel: what it would refuse fails here too."""
    message = wgmsg()
    message["attrs"].append(["WGDEVICE_A_IFNAME", name])
    if "peer" in what:
        pyroute2.netlink.generic.wireguard.AsyncWireGuard._wg_set_peer(_Keys(), message, what["peer"])
    message.encode()
    return message


class _Keys:
    """Of the socket, what building a message needs: it opens none."""

    _wg_test_key = pyroute2.netlink.generic.wireguard.AsyncWireGuard._wg_test_key
    _wg_build_allowedips = pyroute2.netlink.generic.wireguard.AsyncWireGuard._wg_build_allowedips


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(pyroute2, "IPRoute", lambda: FakeRoute(made))
    monkeypatch.setattr(pyroute2, "WireGuard", lambda: FakeWireGuard(made))
    for module in (wireguard, wireguard_kernel):
        monkeypatch.setattr(module, "inside", made.inside)
    return made


@pytest.fixture
def made(kernel: Kernel) -> KernelInterface:
    return KernelDriver().make("sk0123", 51820)


def told(kernel: Kernel) -> list[tuple[str, str]]:
    return [(where, what) for where, what, _ in kernel.calls]


def test_made_in_the_nodes_namespace_and_moved(kernel: Kernel, made: KernelInterface) -> None:
    made.set_peers([RELAY])
    made.move(NAMESPACE, ADDRESS, SUBNET, 1420)
    assert told(kernel) == [
        ("node", "link add"),
        ("node", "set sk0123"),
        ("node", "set sk0123"),
        ("node", "link set"),
        ("run", "link set"),
        ("run", "addr add"),
        ("run", "link set"),
        ("run", "route add"),
    ]
    assert kernel.links == {"node": {}, "run": {"wg0": 7}}
    key = kernel.calls[1][2]
    shown = X25519PrivateKey.from_private_bytes(pyroute2.netlink.generic.wireguard.b64decode(key["private_key"]))
    assert shown.public_key().public_bytes_raw() == made.public_key
    assert key["listen_port"] == 51820
    assert kernel.calls[5][2] == {"index": 7, "address": "10.76.0.1", "prefixlen": 32}


def test_peers_are_told_where_the_interface_is(kernel: Kernel, made: KernelInterface) -> None:
    made.move(NAMESPACE, ADDRESS, SUBNET, 1420)
    kernel.calls.clear()
    made.set_peers([PEER, CALLER, RELAY])
    base = {"replace_allowed_ips": True}
    calls = {"persistent_keepalive": 25}
    assert kernel.calls == [
        (
            "run",
            "set wg0",
            {
                "peer": base
                | calls
                | {
                    "public_key": b64(PEER.public_key),
                    "allowed_ips": ["10.76.0.2/32"],
                    "endpoint_addr": "192.0.2.7",
                    "endpoint_port": 51820,
                }
            },
        ),
        ("run", "set wg0", {"peer": base | {"public_key": b64(CALLER.public_key), "allowed_ips": ["10.76.0.3/32"]}}),
        (
            "run",
            "set wg0",
            {
                "peer": base
                | calls
                | {
                    "public_key": b64(RELAY.public_key),
                    "allowed_ips": [],
                    "preshared_key": b64(b"s" * 32),
                    "endpoint_addr": "192.0.2.9",
                    "endpoint_port": 51819,
                }
            },
        ),
    ]


def test_who_goes_is_removed_first(kernel: Kernel, made: KernelInterface) -> None:
    made.set_peers([PEER])
    kernel.calls.clear()
    made.set_peers([CALLER])
    assert kernel.calls[0][2] == {"peer": {"public_key": b64(PEER.public_key), "remove": True}}
    assert kernel.calls[1][2]["peer"]["public_key"] == b64(CALLER.public_key)


def test_closing_removes_it_where_it_is(kernel: Kernel, made: KernelInterface) -> None:
    made.move(NAMESPACE, ADDRESS, SUBNET, 1420)
    made.close()
    assert kernel.links == {"node": {}, "run": {}}
    made.wait()


def test_what_an_earlier_node_left_in_the_namespace_goes(kernel: Kernel, made: KernelInterface) -> None:
    kernel.links["run"]["wg0"] = 3
    made.move(NAMESPACE, ADDRESS, SUBNET, 1420)
    assert ("run", "link del", {"index": 3}) in kernel.calls
    assert kernel.links["run"] == {"wg0": 7}


def test_a_kernel_without_it(kernel: Kernel) -> None:
    kernel.refuses = True
    assert "Operation not supported" in (KernelDriver().missing() or "")
    with pytest.raises(LauncherError, match="Operation not supported"):
        KernelDriver().make("sk0123", 1)


def test_a_kernel_with_it_leaves_nothing(kernel: Kernel) -> None:
    assert KernelDriver().missing() is None
    assert kernel.links == {"node": {}, "run": {}}


@pytest.mark.parametrize(("refuses", "name"), [(False, "the kernel's WireGuard"), (True, "wireguard-go")])
def test_the_choice(kernel: Kernel, refuses: bool, name: str) -> None:
    kernel.refuses = refuses
    assert vpn.choose_driver.__wrapped__().name == name


@pytest.mark.parametrize("seconds", [0, 1700000000])
def test_whether_a_remote_answered(kernel: Kernel, made: KernelInterface, seconds: int) -> None:
    """From a message as the kernel lays it out."""
    said = wgmsg()
    attributes = [["WGPEER_A_PUBLIC_KEY", b64(PEER.public_key)]]
    attributes.append(["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": seconds, "tv_nsec": 0}])
    said["attrs"] = [["WGDEVICE_A_PEERS", [{"attrs": attributes}]]]
    said.encode()
    heard = wgmsg(said.data)
    heard.decode()
    kernel.told = [heard]
    assert made.has_met(PEER.public_key) == bool(seconds)
    assert not made.has_met(CALLER.public_key)


def test_an_endpoint_that_stays_is_not_told_again() -> None:
    """WireGuard may have heard the other at a better one since."""
    known = Known()
    for expected in (True, False):
        gone, changes = known.compare([PEER])
        assert [(change.moves, change.calls) for change in changes] == [(expected, expected)]
        known.take(gone, changes)
    moved = Remote(PEER.public_key, ("192.0.2.8", 51820), PEER.address)
    assert [(change.moves, change.calls) for change in known.compare([moved])[1]] == [(True, True)]


def test_one_that_is_not_called_yet_is_called_later() -> None:
    known = Known()
    for remote, expected in [
        (replace(PEER, calls=False), (True, False)),
        (PEER, (False, True)),
        (PEER, (False, False)),
    ]:
        gone, changes = known.compare([remote])
        assert [(change.moves, change.calls) for change in changes] == [expected]
        known.take(gone, changes)


def test_one_that_is_not_called_yet_has_its_place(kernel: Kernel, made: KernelInterface) -> None:
    """Both drivers: what is said to it goes there, and nothing is sent before."""
    quiet = replace(PEER, calls=False)
    made.set_peers([quiet])
    [(_, _, told)] = kernel.calls[-1:]
    assert told["peer"]["endpoint_addr"] == "192.0.2.7"
    assert "persistent_keepalive" not in told["peer"]
    [change] = Known().compare([quiet])[1]
    lines = list(wireguard_go._lines(change))
    assert "endpoint=192.0.2.7:51820" in lines
    assert not [line for line in lines if "keepalive" in line]
