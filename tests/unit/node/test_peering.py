"""A run whose way to its peers has gone gets another one, or ends; nothing is left open in between."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skerry.peering import Peer
from skerry.wire import b64
from skerry_node import vpn
from skerry_node.config import RelaySettings, VpnSettings
from skerry_node.launchers.launcher import Attempt, LauncherError
from skerry_node.orders import Others
from skerry_node.peering import Peering
from skerry_node.wireguard import Remote

pytestmark = pytest.mark.unit
KEY = Attempt(7, 1)
SUBNET = vpn.ipaddress.IPv4Network("10.76.0.0/24")


class FakeTunnel:
    """Ends by itself as often as it is told."""

    version = ""

    def __init__(self, ends: int, failure: Exception | None = None) -> None:
        self.ends, self.failure = ends, failure
        self.renewed, self.admitted = 0, list[Any]()

    def wait(self) -> bool:
        self.ends -= 1
        return self.ends >= 0

    def renew(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.renewed += 1

    def describe(self) -> dict[str, Any]:
        return {"address": "10.76.0.1", "endpoint": None, "ports": []}

    def admit(self, peers: Any, version: str, *, newcomer: bool) -> None:
        self.admitted.append((tuple(peers), version, newcomer))


class FakeCourse:
    """Server and proxy answer at once; what stops the container is counted."""

    key = KEY

    def __init__(self, tunnel: FakeTunnel) -> None:
        others = SimpleNamespace(version="v2", statements=[])
        self.stops = 0
        self.introduced = threading.Event()
        self.entry = SimpleNamespace(resume={})
        self.order = SimpleNamespace(task=SimpleNamespace(job_id=5))
        self.parts = SimpleNamespace(
            closing=threading.Event(),
            proxy=SimpleNamespace(
                introduce=lambda *_: {}, judge=lambda *_: SimpleNamespace(peers=(), refused=("not signed",))
            ),
            server=SimpleNamespace(introduce=lambda *_: others),
            tunnels=SimpleNamespace(find=lambda _: tunnel),
            ask_again=self.introduced.set,
        )

    def ask_proxy(self, ask: Any) -> Any:
        return ask()

    patiently = ask_proxy

    def token(self) -> str:
        return "token"

    def stop_container(self) -> None:
        self.stops += 1


def make(tunnel: FakeTunnel) -> tuple[Peering, FakeCourse]:
    course = FakeCourse(tunnel)
    return Peering(course, SimpleNamespace(tell=lambda *_, **__: None)), course  # type: ignore[arg-type]


def test_an_interface_that_ended_is_made_again_and_introduced() -> None:
    tunnel = FakeTunnel(ends=2)
    peering, course = make(tunnel)
    peering._keep(tunnel)  # type: ignore[arg-type]
    assert (tunnel.renewed, tunnel.admitted, course.stops, peering.broken) == (2, [((), "v2", True)] * 2, 0, None)


def test_where_that_can_not_be_done_the_run_ends() -> None:
    tunnel = FakeTunnel(ends=5, failure=LauncherError("no /dev/net/tun"))
    peering, course = make(tunnel)
    peering._keep(tunnel)  # type: ignore[arg-type]
    assert course.stops == 1
    assert tunnel.admitted == []
    assert "could not make it again" in (peering.broken or "")


def test_a_replaced_proxy_is_told_again() -> None:
    tunnel = FakeTunnel(ends=0)
    peering, course = make(tunnel)
    peering.introduce_again()
    assert course.introduced.wait(60)
    assert tunnel.admitted == [((), "v2", True)]


def test_who_hears_of_a_newcomer_is_none() -> None:
    tunnel = FakeTunnel(ends=0)
    peering, _ = make(tunnel)
    peering.meet(Others(version="v3", statements=[]))
    assert tunnel.admitted == [((), "v3", False)]


class FakeDriver:
    """Interfaces that keep whom they are told, in the order of what is done; in brackets who is not called."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def make(self, name: str, port: int) -> Any:
        self.log.append("make")

        def set_peers(remotes: Any) -> None:
            self.log.append([remote.public_key[:1] if remote.calls else [remote.public_key[:1]] for remote in remotes])

        return SimpleNamespace(
            public_key=b"k" * 32, set_peers=set_peers, move=lambda *_: self.log.append("move"), close=lambda: None
        )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a tunnel does, whose interface is none."""
    log: list[Any] = []
    monkeypatch.setattr(vpn, "choose_driver", lambda: FakeDriver(log))
    monkeypatch.setattr(vpn.firewall, "close", lambda _, peers, __: log.append([str(peer) for peer in peers]))
    monkeypatch.setattr(vpn.os, "close", lambda _: None)
    return log


CALLED = VpnSettings(endpoint="192.0.2.1")


def make_tunnel(settings: VpnSettings = CALLED) -> vpn.Tunnel:
    return vpn.Tunnel("sk", vpn.Place(99, SUBNET[1], SUBNET, {}), settings, 1)


def peer(number: int) -> Peer:
    return Peer(number, 1, 1, number, "job", b"%d" % number * 32, SUBNET[number], None, {}, 1, {})


def test_the_rules_come_before_the_interface_and_the_peers_before_the_rules(log: list[Any]) -> None:
    """Who left is shut out before, and who came let in after, there is a way to them."""
    tunnel = make_tunnel()
    tunnel.admit([peer(2)], "v")
    tunnel.renew()
    assert log == [[], "make", [], "move", [b"2"], ["10.76.0.2"], ["10.76.0.2"], "make", [b"2"], "move"]
    assert isinstance(tunnel._remotes[0], Remote)
    tunnel.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is put off."""
    later: list[Any] = []
    monkeypatch.setattr(vpn, "_after", lambda _, deed: later.append(deed))
    return later


def test_a_newcomer_is_called_first_and_calls_then(log: list[Any], later: list[Any], tmp_path: Path) -> None:
    """Calls that cross end both; who is known is called as before, and whoever comes meanwhile at once."""
    (tmp_path / "secret").write_text(b64(b"s" * 32))
    relay = RelaySettings(endpoint=("192.0.2.9", 51820), public_key=b64(b"r" * 32), secret_file=tmp_path / "secret")
    tunnel = make_tunnel(VpnSettings(relay=relay))
    tunnel.admit([peer(2)], "v")
    tunnel.admit([peer(2), peer(3)], "w", newcomer=True)
    assert log[-2:] == [[b"r", b"2", [b"3"]], ["10.76.0.2", "10.76.0.3"]]
    tunnel.admit([peer(2), peer(3), peer(4)], "w")
    assert log[-2] == [b"r", b"2", [b"3"], b"4"]
    later.pop()()
    assert log[-1] == [b"r", b"2", b"3", b"4"]
    assert tunnel.version == "w"
    tunnel.admit([peer(5)], "x", newcomer=True)
    tunnel.close()
    told = len(log)
    later.pop()()
    assert len(log) == told, "nothing is said to an interface that has gone"


def test_a_newcomer_whom_nobody_can_call_calls_at_once(log: list[Any], later: list[Any]) -> None:
    tunnel = make_tunnel(VpnSettings())
    tunnel.admit([peer(2)], "v", newcomer=True)
    assert log[-2] == [b"2"]
    assert not later
    tunnel.close()


def test_a_call_that_fails_is_made_when_the_peers_are_named_again(
    log: list[Any], later: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = make_tunnel()
    tunnel.admit([peer(2)], "v", newcomer=True)

    def refuse(_: Any) -> None:
        raise LauncherError("no answer")

    with monkeypatch.context() as broken:
        broken.setattr(tunnel._interface, "set_peers", refuse)
        later.pop()()
    assert tunnel.version == ""
    tunnel.admit([peer(2)], "v")
    assert log[-2] == [b"2"]
    tunnel.close()
