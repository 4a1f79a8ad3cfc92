"""Successors of keys and revoked certificates: what an organization says counts, what the server makes up does not."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from skerry import crypto, keys, trust
from skerry.errors import CryptoError, KeyChanged, KeyFileError, SignatureError
from skerry.keys import Certificate, Identity, OrganizationKeys
from skerry.pins import Pins
from skerry.statements import OVERLAP, Announced, Revocation, Succession, revoked, succeed
from skerry.wire import Context

pytestmark = pytest.mark.unit
NOW = int(time.time())


@pytest.fixture(autouse=True)
def _short_keys(monkeypatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)


@pytest.fixture(autouse=True)
def _present(monkeypatch) -> None:
    """Of each test: a certificate that is made in its course is not from the future."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", int(time.time()))


def announce(identity: Identity, *successions: dict, revocation: dict | None = None) -> Announced:
    entry = identity.organization_keys(1)
    return Announced.from_wire({**entry, "successions": list(successions), "revocation": revocation})


def context(**changes) -> Context:
    values = {"direction": "input", "task": "t", "parent": None, "collaboration": 1, "sender": 1, "user": None}
    values |= {"recipient": 2, "image": "i", "databases": (), "attempt": None, "created": NOW, "expires": NOW + 60}
    return Context(**(values | changes))


def verify(author: Identity, reader: Identity, known: OrganizationKeys, **changes) -> trust.Sender:
    made = context(**changes)
    pieces = crypto.seal([b"x"], made, recipients=[reader.public_pem], identity=author)
    opened = crypto.unseal(pieces, reader)
    assert b"".join(opened.chunks) == b"x"
    expected = trust.Expected("input", "t", 1, 2, "i", ())
    return trust.verify(opened.header, opened.proof, expected, lambda _: known, NOW)


@pytest.fixture
def pins(tmp_path, alice) -> Pins:
    pins = Pins(tmp_path / "pins.json")
    pins.trust(announce(alice))
    return pins


def test_a_successor_is_followed_over_several_steps(pins, alice, tmp_path) -> None:
    second, first_step = succeed(alice, 1, compromised=False)
    third, second_step = succeed(second, 1, compromised=False)
    shown = announce(third, first_step, second_step)
    assert pins.trust(shown) == shown.keys
    assert Pins(tmp_path / "pins.json").get(1) == shown.keys
    with pytest.raises(KeyChanged):
        pins.trust(announce(alice, first_step, second_step))


def test_a_confirmed_key_hands_its_confirmation_on(tmp_path, alice) -> None:
    pins = Pins(tmp_path / "pins.json", require_confirmed=True)
    pins.confirm(alice.own_keys(1))
    fresh, step = succeed(alice, 1, compromised=False)
    assert pins.trust(announce(fresh, step)) == fresh.own_keys(1)


@pytest.mark.parametrize(
    "change",
    [
        {"until": NOW + 10 * OVERLAP},
        {"created": 1},
        {"organization_id": 2},
        {"previous": "0" * 64},
        {"signature": "AA=="},
    ],
)
def test_an_altered_succession_is_none(pins, alice, change) -> None:
    fresh, step = succeed(alice, 1, compromised=False)
    with pytest.raises(KeyChanged):
        pins.trust(announce(fresh, {**step, **change}))
    assert pins.get(1) == alice.own_keys(1)


def test_a_server_can_not_make_a_succession(pins, alice, bob) -> None:
    """Neither with a key of its own nor with another organization's statement."""
    forged, own = succeed(bob, 1, compromised=False)
    with pytest.raises(KeyChanged):
        pins.trust(announce(forged, own))
    with pytest.raises(KeyChanged):
        pins.trust(announce(forged, {**own, "previous": alice.own_keys(1).fingerprint}))


def test_what_the_old_key_signed_in_time_still_counts(pins, alice, bob) -> None:
    fresh, step = succeed(alice, 1, compromised=False)
    known = pins.trust(announce(fresh, step))
    assert verify(alice, bob, known).organization == 1
    assert verify(fresh, bob, known).organization == 1
    aged = replace(known, retired=tuple(replace(key, until=NOW - 1) for key in known.retired))
    with pytest.raises(SignatureError):
        verify(alice, bob, aged)


def test_nothing_that_a_stolen_key_signed_counts(pins, alice, bob) -> None:
    fresh, step = succeed(alice, 1, compromised=True)
    known = pins.trust(announce(fresh, step))
    for created in (NOW, NOW - 30):
        with pytest.raises(SignatureError):
            verify(alice, bob, known, created=created)


def test_the_new_file_reads_what_was_encrypted_for_the_old_key(tmp_path, alice, bob) -> None:
    fresh, _ = succeed(alice, 1, compromised=False)
    fresh.save(tmp_path / "key.pem")
    again = Identity.load(tmp_path / "key.pem")
    assert again.own_keys(1).retired == fresh.own_keys(1).retired
    sealed = b"".join(crypto.seal([b"x"], context(), recipients=[alice.public_pem], identity=bob))
    assert b"".join(crypto.unseal([sealed], again).chunks) == b"x"
    with pytest.raises(CryptoError):
        crypto.unseal([sealed], replace(again, previous=()))


def test_a_users_file_has_no_successor(alice, bob) -> None:
    certificate = Certificate.issue(alice.signing, 1, 3, bob.signing.public_key().public_bytes_raw())
    with pytest.raises(KeyFileError):
        succeed(Identity(alice.encryption, bob.signing, certificate), 1, compromised=False)


def user(alice: Identity, bob: Identity) -> Identity:
    certificate = Certificate.issue(alice.signing, 1, 3, bob.signing.public_key().public_bytes_raw())
    return Identity(alice.encryption, bob.signing, certificate)


def test_a_revoked_certificate_is_refused(pins, alice, bob) -> None:
    person = user(alice, bob)
    assert verify(person, bob, pins.get(1), user=3).user == 3
    now = int(time.time())
    known = pins.trust(announce(alice, revocation=revoked(alice, 1, {3: now})))
    with pytest.raises(SignatureError, match="revoked"):
        verify(person, bob, known, user=3)
    later = replace(person, certificate=replace(person.certificate, created=now + 100))
    assert not known.revokes(later.certificate)


def test_a_revocation_is_not_forged_moved_or_taken_back(pins, alice, bob) -> None:
    genuine = {**revoked(alice, 1, {3: NOW})}
    for wrong in (revoked(bob, 1, {3: NOW}), {**genuine, "revoked": []}, revoked(alice, 2, {3: NOW})):
        assert pins.trust(announce(alice, revocation=wrong)).revoked == ()
    assert pins.trust(announce(alice, revocation=genuine)).revoked == ((3, NOW),)
    assert pins.trust(announce(alice)).revoked == ((3, NOW),)
    older = revoked(alice, 1, {}) | {"created": 1}
    assert pins.trust(announce(alice, revocation=older)).revoked == ((3, NOW),)


def test_a_revocation_outlives_a_rotation(pins, alice, bob) -> None:
    pins.trust(announce(alice, revocation=revoked(alice, 1, {3: NOW})))
    fresh, step = succeed(alice, 1, compromised=False)
    assert pins.trust(announce(fresh, step)).revoked == ((3, NOW),)


@pytest.mark.parametrize(
    "value", [None, [], {}, {"organization_id": 1}, {"organization_id": True, "signature": ""}, "x"]
)
def test_what_is_no_statement(value) -> None:
    for kind in (Succession, Revocation):
        with pytest.raises(CryptoError):
            kind.parse(value)


def test_an_owner_who_confirms_meanwhile_is_heard(tmp_path, alice, bob) -> None:
    """Two processes on one file: the proxy of a running node, and the owner's command."""
    running, command = (Pins(tmp_path / "pins.json", require_confirmed=required) for required in (True, False))
    with pytest.raises(CryptoError):
        running.trust(announce(alice))
    command.confirm(alice.own_keys(1))
    assert running.get(1) == alice.own_keys(1)
    command.confirm(bob.own_keys(1))
    assert running.get(1) == bob.own_keys(1)
