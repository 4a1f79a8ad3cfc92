"""Runs in the VPN of their job, as the server knows them."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from server_federation import Api, Federation

from skerry.keys import Identity
from skerry.peering import sign_peer
from skerry.wire import b64
from skerry_server.services import peering

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.generate()


class Job:
    """Runs at 1 and 2 that have presented themselves."""

    def __init__(self, federation: Federation, identity: Identity) -> None:
        self.federation, self.identity = federation, identity
        federation.make_task(federation.make_user(), 1, 2)
        self.orders = {number: federation.work(number)["runs"][-1] for number in (1, 2)}

    def reserve(self, number: int) -> Any:
        order = self.orders[number]
        return self.federation.nodes[number].post(f"skerry/run/{order['run']}/peer", {"attempt": order["attempt"]})

    def statement(self, number: int, **changes: Any) -> dict[str, Any]:
        order = self.orders[number]
        fields = {
            "run": order["run"],
            "attempt": order["attempt"],
            "collaboration": self.federation.collaboration,
            "organization": number,
            "job": order["task"]["uuid"],
            "public_key": b64(X25519PrivateKey.generate().public_key().public_bytes_raw()),
            "address": self.reserve(number)["address"],
            "endpoint": "192.0.2.1:51820",
            "ports": [{"port": 8888, "label": "ring"}],
            "created": 1_700_000_000,
        }
        return sign_peer(self.identity, {**fields, **changes})

    def introduce(self, number: int, **changes: Any) -> Any:
        order = self.orders[number]
        body = {"attempt": order["attempt"], "statement": self.statement(number, **changes)}
        return self.federation.nodes[number].put(f"skerry/run/{order['run']}/peer", body)

    def news(self, number: int, version: str) -> Any:
        order = self.orders[number]
        held = {"run": order["run"], "attempt": order["attempt"], "peers": version}
        return self.federation.work(number, capacity=0, holding=[held])["peers"]


@pytest.fixture
def job(federation: Federation, identity: Identity) -> Job:
    return Job(federation, identity)


def test_addresses_are_each_runs_own(job: Job) -> None:
    first, second = job.reserve(1), job.reserve(2)
    assert first == {"address": "10.76.0.1", "subnet": "10.76.0.0/16"}
    assert second["address"] == "10.76.0.2"
    assert job.reserve(1) == first


def test_an_address_is_free_after_its_run(job: Job, federation: Federation, identity: Identity) -> None:
    given = job.reserve(1)["address"]
    federation.finish(job.orders[1])
    assert job.reserve(2)["address"] == given
    again = Job(federation, identity)
    assert again.reserve(1)["address"] != given


def test_the_others_hear_of_it(job: Job) -> None:
    alone = job.introduce(1)
    assert alone["statements"] == []
    assert job.news(1, alone["version"]) == []
    seen = job.introduce(2)
    assert [one["organization"] for one in seen["statements"]] == [1]
    [told] = job.news(1, alone["version"])
    assert [one["organization"] for one in told["statements"]] == [2]
    assert job.news(1, told["version"]) == []


def test_of_two_that_are_introduced_at_once_one_is_told_of_the_other(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets the other call it: both would call at once if both heard of it later."""
    bodies = {number: {"attempt": 1, "statement": job.statement(number)} for number in (1, 2)}
    both = threading.Barrier(2)

    def tell(*_: Any) -> None:
        """Both are here only if nothing keeps the second one out while the first has not committed."""
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)

    monkeypatch.setattr(peering, "tell_job", tell)

    def introduce(number: int) -> int:
        caller = Api(job.federation.client.application.test_client(), job.federation.nodes[number].token)
        return len(caller.put(f"skerry/run/{job.orders[number]['run']}/peer", bodies[number])["statements"])

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(introduce, (1, 2))) == 1


def test_the_others_hear_of_the_end(job: Job, federation: Federation) -> None:
    job.introduce(1)
    known = job.introduce(2)["version"]
    federation.finish(job.orders[1])
    [told] = job.news(2, known)
    assert told["statements"] == []
    assert federation.as_run(job.orders[2]).get("vpn/algorithm/addresses", only_siblings=1)["addresses"] == []


def test_a_killed_task_leaves_the_vpn(job: Job, federation: Federation, identity: Identity) -> None:
    job.introduce(1)
    job.introduce(2)
    federation.root.post("kill/task", {"id": job.orders[1]["task"]["id"]})
    fresh = Job(federation, identity)
    assert fresh.introduce(1)["statements"] == []


def test_another_job_is_not_told(job: Job, federation: Federation, identity: Identity) -> None:
    job.introduce(1)
    other = Job(federation, identity)
    assert other.introduce(2)["statements"] == []


def test_the_addresses_that_algorithms_see(job: Job, federation: Federation) -> None:
    job.introduce(1)
    job.introduce(2, ports=[{"port": 7000, "label": None}, {"port": 7001, "label": "x"}])
    as_run: Api = federation.as_run(job.orders[1])
    found = as_run.get("vpn/algorithm/addresses", only_siblings=1)["addresses"]
    assert [(one["ip"], one["port"], one["label"]) for one in found] == [
        ("10.76.0.2", 7000, None),
        ("10.76.0.2", 7001, "x"),
    ]
    assert as_run.get("vpn/algorithm/addresses", label="ring")["addresses"][0]["organization_id"] == 1


@pytest.mark.parametrize("change", [{"organization": 2}, {"run": 99}, {"address": "10.76.0.9"}, {"collaboration": 9}])
def test_a_statement_about_another(job: Job, federation: Federation, change: dict[str, Any]) -> None:
    order = job.orders[1]
    body = {"attempt": order["attempt"], "statement": job.statement(1, **change)}
    assert "another run" in federation.nodes[1].refused(400, "PUT", f"skerry/run/{order['run']}/peer", body)


def test_what_is_no_statement(job: Job, federation: Federation) -> None:
    order = job.orders[1]
    path, body = f"skerry/run/{order['run']}/peer", {"attempt": order["attempt"], "statement": {"v": 2}}
    assert "no address yet" in federation.nodes[1].refused(400, "PUT", path, body)
    job.reserve(1)
    assert "statement" in federation.nodes[1].refused(400, "PUT", path, body)
    federation.nodes[2].refused(401, "PUT", path, body)
    federation.nodes[1].refused(409, "POST", path, {"attempt": order["attempt"] + 1})
