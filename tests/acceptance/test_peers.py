"""Runs that talk to the other runs of their job, on three nodes that allow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devfederation import ALGORITHMS, DevFederation, build, skerry
from walks import below

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"
SUM = sum(20 + 10 * i + j for i in range(3) for j in range(20))


@pytest.fixture(scope="module")
def vpn_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vpn") / "settings.json"
    path.write_text(json.dumps({"policies": {"vpn": "allow"}, "vpn": {"endpoint": "127.0.0.1"}}))
    return path


@pytest.fixture(scope="module")
def peers(dev: Any, shares: str, vpn_machine: None, vpn_settings: Path) -> Iterator[DevFederation]:
    with dev("--nodes", "3", "--database", shares, "--node-settings", str(vpn_settings)) as federation:
        yield federation


@pytest.fixture(scope="module")
def peer_probe(images: object) -> str:
    return build(ALGORITHMS / "peerprobe", "skerry-tests/peerprobe")


def ask(federation: DevFederation, image: str, organizations: list[int], method: str, /, **kwargs: Any) -> list[Any]:
    task = federation.client().task.create(
        organizations=organizations,
        name=method,
        image=image,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": kwargs},
        databases=[{"label": "default"}],
    )
    return list(task.wait().results())


@pytest.mark.parametrize("example", ["ring-sum", "secret-shares"])
def test_the_examples_add_up(peers: DevFederation, images: object, example: str) -> None:
    image = build(EXAMPLES / example, f"skerry-tests/{example}")
    [found] = ask(peers, image, peers.organization_ids[:1], "total", column="age")
    assert found == {"sum": SUM}


def test_the_addresses(peers: DevFederation, peer_probe: str) -> None:
    """Each query of section 7.4 of the contract, asked by a run among children, siblings and a parent."""
    ids = peers.organization_ids
    [seen] = ask(peers, peer_probe, ids[:1], "queries", organizations=ids)
    child, parent = seen["child"], seen["parent"]
    assert _sorted(parent) == {
        "none": ids[:1],
        "only_children": ids,
        "only_self": ids[:1],
        "only_siblings": [],
        "only_parent": ids[:1],
        "include_parent": ids[:1],
        "include_children": ids,
        "label": ids[:1],
        "no such label": [],
        "only_children, label": ids,
        "only_siblings, no such label": [],
        "both includes": ids,
        "only_self, include_parent": ids[:1],
        "only_siblings, include_children": [],
        "get_child_addresses": ids,
        "get_parent_address": ids[:1],
        "get_sibling_addresses": [],
        "get_own_address": ids[:1],
        "two only": True,
    }
    assert _sorted(child) == {
        "none": ids,
        "only_children": [],
        "only_self": ids[1:2],
        "only_siblings": [ids[0], ids[2]],
        "only_parent": ids[:1],
        "include_parent": ids,
        "include_children": ids,
        "label": ids,
        "no such label": [],
        "only_children, label": [],
        "only_siblings, no such label": [],
        "both includes": ids,
        "only_self, include_parent": ids[1:2],
        "only_siblings, include_children": [ids[0], ids[2]],
        "get_child_addresses": [],
        "get_parent_address": ids[:1],
        "get_sibling_addresses": [ids[0], ids[2]],
        "get_own_address": ids[1:2],
        "two only": True,
    }


def _sorted(found: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(set(rows)) if isinstance(rows, list) else rows for name, rows in found.items()}


def test_one_that_has_ended_is_not_waited_for(peers: DevFederation, peer_probe: str) -> None:
    """By the real gate, which tells how the runs stand."""
    ids = peers.organization_ids
    [seen] = ask(peers, peer_probe, ids[:1], "look_for_one_that_left", organization=ids[1])
    for who in ("child", "sibling"):
        assert f"Organization {ids[1]} is not in the VPN: its run ended (completed)" in seen[who]


def test_what_a_run_reaches(peers: DevFederation, peer_probe: str) -> None:
    """Its peer's declared ports, by TCP and UDP; no undeclared port, no host, and nothing of the interface."""
    ids = peers.organization_ids
    [seen] = ask(peers, peer_probe, ids[:1], "surroundings", organizations=ids[1:])
    assert seen["tcp"]
    assert seen["udp"]
    for what in ("undeclared", "host", "subnet's first", "metadata", "internet"):
        assert not seen[what], what
    assert seen["interfaces"] == ["lo", "wg0"]
    assert seen["changing the interface"] == "PermissionError"
    assert seen["reading the configuration"] in {"FileNotFoundError", "PermissionError"}


def test_another_job_is_not_reached(peers: DevFederation, peer_probe: str) -> None:
    ids = peers.organization_ids
    client = peers.client()
    held = client.task.create(
        organizations=ids[1:2],
        name="hold",
        image=peer_probe,
        collaboration=peers.collaboration_id,
        input_={"method": "hold", "kwargs": {"seconds": 600}},
        databases=[],
    )
    try:
        peers.wait_for_status(held["id"], "active")
        run = client.run.list(task=held["id"])["data"][0]
        [port] = run["ports"]
        assert port["port"] == 8888
        [reached] = ask(peers, peer_probe, ids[:1], "sweep", port=8888)
    finally:
        client.task.kill(held["id"])
    assert reached == {"known": [], "reached": []}


def test_without_the_owners_word_there_is_no_vpn(federation: DevFederation, peer_probe: str) -> None:
    [seen] = ask(federation, peer_probe, federation.organization_ids[:1], "alone")
    assert seen == {"interfaces": ["lo"], "addresses": []}


def test_the_check_says_whether_a_node_can(peers: DevFederation) -> None:
    [config, *_] = below(peers.folder, "node.yaml")
    checked = skerry("node", "check", "--config", str(config))
    assert "WireGuard" in checked.stdout + checked.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr
