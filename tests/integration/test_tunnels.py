"""WireGuard interfaces in namespaces, as runs get them: who reaches whom, and what is left."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from tunnelends import PORT, SUBNET, End, join

from skerry.keys import Identity
from skerry.peering import Peer, sign_peer
from skerry_node import namespace, vpn
from skerry_node.config import VpnSettings
from skerry_node.launchers.launcher import Attempt, LauncherError
from skerry_node.vpn import Place, Tunnels
from skerry_node.wireguard import INSIDE
from skerry_node.wireguard_go import GoDriver

pytestmark = pytest.mark.integration

HIDDEN, BRIEF = 9999, 1.5
INSTALLATION = "0123456789ab"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.generate()


@pytest.fixture(autouse=True)
def _able(vpn_machine: None) -> None:
    """WireGuard and nftables are here."""


@pytest.fixture
def tunnels() -> Iterator[Tunnels]:
    yield Tunnels(VpnSettings(endpoint="127.0.0.1", ports=(42100, 42109)), INSTALLATION)
    left = [vpn.name_interface(INSTALLATION, Attempt(number, 1)) for number in (1, 2, 3)]
    assert not [name for name in left if Path(f"/var/run/wireguard/{name}.sock").exists()]


@pytest.fixture
def end(tunnels: Tunnels, identity: Identity) -> Iterator[Callable[[int], End]]:
    made: list[End] = []

    def make(number: int) -> End:
        space = namespace.make_empty()
        place = Place(os.dup(space), SUBNET[number], SUBNET, {PORT: "ring"})
        made.append(End(number, space, tunnels.open(Attempt(number, 1), place), identity))
        return made[-1]

    yield make
    for one in made:
        tunnels.close(Attempt(one.number, 1))
        for listener in one.listeners:
            listener.close()
        os.close(one.namespace)


@pytest.fixture
def pair(end: Callable[[int], End]) -> tuple[End, End]:
    first, second = end(1), end(2)
    join(first, second)
    return first, second


def test_peers_talk_by_tcp(pair: tuple[End, End]) -> None:
    first, second = pair
    listener = second.listen(PORT)
    assert first.call(second.address, PORT)
    connection, (caller, _) = listener.accept()
    connection.close()
    assert caller == first.address


def test_peers_talk_by_udp(pair: tuple[End, End]) -> None:
    first, second = pair
    listener, speaker = second.listen(PORT, socket.SOCK_DGRAM), first.listen(PORT, socket.SOCK_DGRAM)
    speaker.sendto(b"hello", (second.address, PORT))
    assert listener.recvfrom(100) == (b"hello", (first.address, PORT))


def test_an_undeclared_port_is_closed(pair: tuple[End, End]) -> None:
    first, second = pair
    second.listen(PORT)
    second.listen(HIDDEN)
    assert first.call(second.address, PORT)
    assert not first.call(second.address, HIDDEN, BRIEF)


def test_who_is_no_peer_is_not_let_in(pair: tuple[End, End], end: Callable[[int], End]) -> None:
    """A third that knows both, and that neither knows."""
    first, second = pair
    second.listen(PORT)
    third = end(3)
    third.tunnel.admit([first.peer(), second.peer()], "v")
    assert first.call(second.address, PORT)
    assert not third.call(second.address, PORT, BRIEF)


def test_who_left_is_shut_out(pair: tuple[End, End]) -> None:
    first, second = pair
    second.listen(PORT)
    assert first.call(second.address, PORT)
    second.tunnel.admit([], "w")
    assert not first.call(second.address, PORT, BRIEF)


def test_nothing_else_is_reached(pair: tuple[End, End]) -> None:
    """Neither the host, by any of its addresses, nor the internet: there is no way to them."""
    first, _ = pair
    with socket.create_server(("", 0)) as host:
        port = host.getsockname()[1]
        for address in ("127.0.0.1", "10.99.0.9", "192.0.2.1", "169.254.169.254", *_own_addresses()):
            assert not first.call(address, port, BRIEF)


def _own_addresses() -> list[str]:
    with IPRoute() as route:
        return [entry.get_attr("IFA_ADDRESS") for entry in route.get_addr(family=socket.AF_INET)]


def test_a_late_peer(pair: tuple[End, End], end: Callable[[int], End]) -> None:
    first, second = pair
    third = end(3)
    third.listen(PORT)
    join(first, second, third)
    assert first.call(third.address, PORT)
    assert second.call(third.address, PORT)


def test_one_that_can_not_be_called_calls(end: Callable[[int], End]) -> None:
    """Behind NAT: it has no endpoint, and reaches and is reached all the same."""
    hidden, open_ = end(1), end(2)
    hidden.listen(PORT)
    open_.listen(PORT)
    hidden.tunnel.admit([open_.peer()], "v")
    open_.tunnel.admit([_without_endpoint(hidden)], "v")
    assert hidden.call(open_.address, PORT)
    assert open_.call(hidden.address, PORT)


def test_one_that_can_not_be_called_calls_though_it_comes_last(end: Callable[[int], End]) -> None:
    """It waits for the other's call first, which can't come."""
    hidden, open_ = end(1), end(2)
    hidden.listen(PORT)
    open_.tunnel.admit([_without_endpoint(hidden)], "v")
    hidden.tunnel.admit([open_.peer()], "v", newcomer=True)
    assert open_.call(hidden.address, PORT)


def _without_endpoint(one: End) -> Peer:
    body = {name: part for name, part in one.peer().wire.items() if name not in {"signature", "v"}}
    return Peer.parse(sign_peer(one.identity, {**body, "endpoint": None}))


@pytest.fixture
def by_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel knows WireGuard."""
    monkeypatch.setattr(vpn, "choose_driver", GoDriver)


@pytest.mark.usefixtures("by_program")
def test_a_killed_program_closes_and_is_replaced(pair: tuple[End, End]) -> None:
    first, second = pair
    second.listen(PORT)
    assert first.call(second.address, PORT)
    key = second.tunnel.public_key
    os.kill(second.tunnel.pid, signal.SIGKILL)
    assert second.tunnel.wait()
    assert not first.call(second.address, PORT, BRIEF)
    second.tunnel.renew()
    assert second.tunnel.public_key != key
    join(first, second)
    assert first.call(second.address, PORT)


def test_the_end_of_the_namespace_is_the_end_of_the_program() -> None:
    """So nothing stays of a run whose node is gone."""
    space = namespace.make_empty()
    made = GoDriver().make("sk-left-over", 0)
    made.move(space, SUBNET[1], SUBNET, 1420)
    os.close(space)
    made.wait()
    made.close()


def test_what_an_earlier_node_left_is_replaced(end: Callable[[int], End], identity: Identity) -> None:
    one = end(1)
    again = Tunnels(VpnSettings(endpoint="127.0.0.1", ports=(42110, 42119)), INSTALLATION)
    place = Place(os.dup(one.namespace), SUBNET[1], SUBNET, {PORT: None})
    tunnel = again.open(Attempt(1, 1), place)
    try:
        assert tunnel.public_key != one.tunnel.public_key
        other = end(2)
        fresh = End(1, one.namespace, tunnel, identity)
        join(fresh, other)
        one.listen(PORT)
        assert other.call(fresh.address, PORT)
    finally:
        again.close(Attempt(1, 1))


def test_what_an_earlier_node_left_has_gone_when_it_is_removed() -> None:
    """Not a moment later: who looks for its interface then must not find one that is about to go."""

    def left() -> list[int]:
        with IPRoute() as there:
            return list(there.link_lookup(ifname=INSIDE))

    for _ in range(10):
        space = namespace.make_empty()
        made = GoDriver().make("sk-left-over", 0)
        made.move(space, SUBNET[1], SUBNET, 1420)
        assert namespace.inside(space, left)
        GoDriver().remove("sk-left-over")
        assert not namespace.inside(space, left)
        os.close(space)
        made.close()


def test_the_machine_is_said_to_be_able() -> None:
    assert vpn.missing() is None


def test_all_ports_in_use(end: Callable[[int], End], identity: Identity) -> None:
    full = Tunnels(VpnSettings(ports=(42120, 42120)), "other")
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("", 42120))
    with taken, pytest.raises(LauncherError, match=r"vpn\.ports"):
        full.open(Attempt(1, 1), Place(namespace.make_empty(), SUBNET[1], SUBNET, {}))


def test_a_socket_that_nobody_listens_at_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is in use stays, as does a fresh one, whose program may only be about to listen."""
    monkeypatch.setattr("skerry_node.wireguard_go._SOCKETS", tmp_path)
    stale, fresh, used, other = (
        tmp_path / f"{name}.sock" for name in ("sk" + "0" * 12, "sk" + "1" * 12, "sk" + "2" * 12, "wg0")
    )
    made = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for path, one in zip((stale, fresh, used, other), made, strict=True):
        one.bind(str(path))
    made[2].listen()
    for path in (stale, used, other):
        os.utime(path, (1, 1))
    GoDriver().sweep()
    assert sorted(tmp_path.iterdir()) == sorted([fresh, used, other])
    for one in made:
        one.close()


def test_a_program_that_is_slow_to_listen_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its socket is there a moment before it listens."""
    program = tmp_path / "slow"
    program.write_text(f"#!{sys.executable}\n{SLOW}")
    program.chmod(0o755)
    monkeypatch.setattr("skerry_node.wireguard_go._SOCKETS", tmp_path)
    monkeypatch.setattr("skerry_node.wireguard_go.PROGRAM", str(program))
    made = GoDriver().make("sk-slow", 0)
    made.close()


SLOW = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(__file__.rpartition("/")[0] + "/" + sys.argv[2] + ".sock")
    time.sleep(1)
    listener.listen()
    while True:
        with listener.accept()[0] as caller:
            if caller.recv(1000):
                caller.sendall(b"errno=0\\n\\n")
"""
