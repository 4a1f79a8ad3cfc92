"""The proxy vouches for its own runs in the VPN, and believes of others only what their organizations signed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from federation import TOKEN

from skerry.errors import CryptoError
from skerry.keys import Identity
from skerry.peering import Peer, sign_peer
from skerry.wire import b64
from skerry_proxy.fields import Fields

pytestmark = pytest.mark.unit
JOB = 5


@pytest.fixture
def said() -> dict:
    return {
        "public_key": b64(X25519PrivateKey.generate().public_key().public_bytes_raw()),
        "address": "10.76.0.2",
        "endpoint": "192.0.2.2:51820",
        "ports": [{"port": 8888, "label": "ring"}],
    }


@pytest.fixture
def bench(make_bench):
    made = make_bench("native")
    made.resume = made.open()["resume"]
    return made


@pytest.fixture
def own(bench, said) -> Peer:
    """The statement that the proxy makes of its own run."""
    return Peer.parse(bench.office.introduce(bench.resume, JOB, Fields(said, "peer")))


def statement_of(signer: Identity, own: Peer, **changes) -> dict:
    """Organization 1's run of the same job."""
    body = {name: part for name, part in own.wire.items() if name not in {"signature", "v"}}
    return sign_peer(signer, {**body, "run": 8, "organization": 1, "address": "10.76.0.1", **changes})


def judge(bench, statement: dict) -> tuple[list, list]:
    answer = bench.office.judge(bench.resume, TOKEN, JOB, [statement])
    return answer["statements"], answer["refused"]


def test_its_own_word(own: Peer, bob: Identity) -> None:
    own.verify(bob.own_keys(2))
    assert own.ports == {8888: "ring"}
    assert own.endpoint == ("192.0.2.2", 51820)


def test_the_job_is_the_one_that_the_user_signed(bench, said, own: Peer) -> None:
    """Whatever number the server gives it."""
    again = Peer.parse(bench.office.introduce(bench.resume, JOB + 1, Fields(said, "peer")))
    assert again.job == own.job == bench.resume["uuid"]


def test_a_peer_is_believed(bench, own: Peer, alice: Identity) -> None:
    statement = statement_of(alice, own)
    assert judge(bench, statement) == ([statement], [])


def test_the_server_can_not_slip_itself_in(bench, own: Peer) -> None:
    good, refused = judge(bench, statement_of(Identity.generate(), own))
    assert (good, len(refused)) == ([], 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "10.76.0.77"),
        ("endpoint", "203.0.113.66:1"),
        ("public_key", b64(bytes(32))),
        ("ports", []),
        ("organization", 3),
        ("attempt", 2),
    ],
)
def test_a_changed_statement_is_refused(bench, own: Peer, alice: Identity, field: str, value: object) -> None:
    good, refused = judge(bench, {**statement_of(alice, own), field: value})
    assert (good, len(refused)) == ([], 1)


@pytest.mark.parametrize("change", [{"job": "another"}, {"collaboration": 9}, {"run": 7}])
def test_another_job_is_refused(bench, own: Peer, alice: Identity, change: dict) -> None:
    assert "another job" in judge(bench, statement_of(alice, own, **change))[1][0]


@pytest.mark.parametrize("value", [{}, {"v": 2}, {"v": 1, "run": "x"}])
def test_what_is_no_statement(bench, own: Peer, value: dict) -> None:
    assert "malformed" in judge(bench, value)[1][0]


@pytest.mark.parametrize(
    "endpoint", ["example.org:51820", "192.0.2.1", "0.0.0.0:1", "224.0.0.1:9", "192.0.2.1:0", "192.0.2.1:70000"]
)
def test_an_endpoint_is_an_address(own: Peer, alice: Identity, endpoint: str) -> None:
    with pytest.raises(CryptoError, match="malformed"):
        statement_of(alice, own, endpoint=endpoint)


def row(peer: Peer, **changes) -> dict:
    """As the server tells it."""
    [(port, label)] = peer.ports.items()
    told = {"ip": str(peer.address), "port": port, "label": label, "organization_id": peer.organization}
    return {**told, "task_id": 9, "parent_id": None, **changes}


def test_addresses_are_those_that_were_signed(bench, fake, call, own: Peer, alice: Identity) -> None:
    """Its own and its peers'; the server's word that one is another organization's, or elsewhere, is not handed on."""
    caller, other = bench.serve(bench.resume), Peer.parse(statement_of(alice, own))
    fake.addresses = [row(own), row(other)]
    assert call(caller, "GET", "/vpn/algorithm/addresses").json() == {"addresses": [row(own)]}
    judge(bench, other.wire)
    assert call(caller, "GET", "/vpn/algorithm/addresses").json() == {"addresses": [row(own), row(other)]}
    lies = [{"organization_id": 3}, {"ip": "10.76.0.9"}, {"port": 22}, {"label": "other"}, {"ip": None}, {"ip": []}]
    fake.addresses = [row(other, **lie) for lie in lies] + ["x", {}]
    assert call(caller, "GET", "/vpn/algorithm/addresses").json() == {"addresses": []}
    bench.office.judge(bench.resume, TOKEN, JOB, [])
    fake.addresses = [row(other)]
    assert call(caller, "GET", "/vpn/algorithm/addresses").json() == {"addresses": []}


def test_addresses_that_are_no_list(bench, fake, call) -> None:
    fake.addresses = None
    assert call(bench.serve(bench.resume), "GET", "/vpn/algorithm/addresses").status_code == 502
