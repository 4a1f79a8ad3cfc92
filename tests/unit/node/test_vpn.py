"""Who may be a peer, what an image declares, and the rules of a run's namespace."""

from __future__ import annotations

import ipaddress
import os

import pytest
import yaml

from skerry.errors import ConfigurationError
from skerry.peering import Peer
from skerry_node import firewall, vpn
from skerry_node.config import load
from skerry_node.launchers.launcher import Image, LauncherError

pytestmark = pytest.mark.unit
RELAY = {"endpoint": "192.0.2.9:51819", "public_key": "A" * 43 + "=", "secret_file": "relay-secret"}
SUBNET = ipaddress.IPv4Network("10.76.0.0/16")


def peer(run: int, address: str, key: bytes = b"") -> Peer:
    shown = ipaddress.IPv4Address(address)
    return Peer(run, 1, 1, run, "job", key or bytes([run] * 32), shown, None, {8888: None}, 1, {})


@pytest.fixture
def place():
    return vpn.Place(-1, SUBNET[1], SUBNET, {8888: None})


def test_peers_that_can_be_told_apart(place) -> None:
    both = [peer(2, "10.76.0.2"), peer(3, "10.76.0.3")]
    assert vpn.choose_peers(both, place) == both


@pytest.mark.parametrize(
    "others",
    [
        [peer(2, "10.76.0.1")],
        [peer(2, "192.168.1.1")],
        [peer(2, "10.76.0.2"), peer(3, "10.76.0.2")],
        [peer(2, "10.76.0.2", b"k" * 32), peer(3, "10.76.0.3", b"k" * 32)],
    ],
)
def test_peers_that_take_anothers_place(place, others) -> None:
    assert vpn.choose_peers(others, place) == []


@pytest.mark.parametrize(
    ("ports", "labels", "declared"),
    [
        ((), {}, {}),
        ((8888,), {}, {8888: None}),
        ((8888, 80), {"p8888": "ring"}, {80: None, 8888: "ring"}),
        ((), {"p7000": "web", "maintainer": "x", "p": "y", "p99999": "z"}, {7000: "web"}),
    ],
)
def test_what_an_image_declares(ports, labels, declared) -> None:
    assert vpn.declared_ports(Image("image", "id", ports=ports, labels=labels)) == declared


def test_without_peers_nothing_passes() -> None:
    text = firewall.rules([], {8888: None})
    assert text.count("policy drop") == 3
    assert "elements" not in text


@pytest.mark.parametrize(
    ("address", "subnet"),
    [("10.77.0.1", "10.76.0.0/16"), ("8.8.8.8", "8.8.8.0/24"), ("127.0.0.1", "127.0.0.0/8"), ("x", "y")],
)
def test_a_server_that_gives_addresses_of_others(address, subnet) -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(LauncherError, match="none of a VPN"):
        vpn.place(descriptor, address, subnet, {})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vpn": {"endpoint": "hospital.example.org"}}, r"vpn\.endpoint"),
        ({"vpn": {"ports": "9-1"}}, "first-last"),
        ({"vpn": {"port": 1}}, 'did you mean "ports"'),
        ({"policies": {"vpn": "allow"}}, "organizations' keys"),
        (
            {"vpn": {"relay": RELAY | {"endpoint": "relay.example.org:1"}}},
            r"vpn\.relay\.endpoint: write the relay's address",
        ),
        ({"vpn": {"relay": RELAY | {"public_key": "AAAA"}}}, r"vpn\.relay\.public_key: this is no key"),
        ({"vpn": {"relay": RELAY | {"secret": "x"}}}, 'did you mean "secret_file"'),
        ({"vpn": {"relay": RELAY}, "policies": {"vpn": "allow"}}, r"vpn\.relay\.secret_file: .* can't be read"),
        ({"vpn": {"relay": RELAY, "endpoint": "192.0.2.7"}, "policies": {"vpn": "allow"}}, "leave one out"),
    ],
)
def test_a_configuration_that_can_not_be(development, change, sentence) -> None:
    development.write_text(yaml.safe_dump({**yaml.safe_load(development.read_text()), **change}))
    with pytest.raises(ConfigurationError, match=sentence):
        load(development)


@pytest.mark.parametrize(
    ("mode", "content", "sentence"), [(0o644, "", "chmod 600"), (0o600, "short", "this is no key")]
)
def test_a_relays_secret_that_can_not_be(development, mode, content, sentence) -> None:
    secret = development.parent / "relay-secret"
    secret.write_text(content)
    secret.chmod(mode)
    change = {"vpn": {"relay": RELAY}, "policies": {"vpn": "allow"}}
    development.write_text(yaml.safe_dump({**yaml.safe_load(development.read_text()), **change}))
    with pytest.raises(ConfigurationError, match=sentence):
        load(development)
