"""What leaves a client and what it believes: formats, pins, and a server that lies."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from skerry import crypto
from skerry.errors import (
    ConfigurationError,
    ContextError,
    CryptoError,
    DecryptionError,
    KeyChanged,
    KeyNotConfirmed,
    MissingKey,
    SignatureError,
)
from skerry.keys import Certificate, Identity
from skerry.payloads import Collaboration, Keyring, Owner, Payloads, TaskFacts
from skerry.pins import Pins
from skerry.wire import Context, Format, b64, detect_format, to_stored, unb64

pytestmark = pytest.mark.unit

NATIVE = Collaboration(1, encrypted=True, accept="native")
PLAIN = Collaboration(1, encrypted=False, accept="native")
TASK = TaskFacts("11111111-1111-4111-8111-111111111111", NATIVE, "image:1", ({"label": "default"},))
RAW = json.dumps({"method": "mean"}).encode()


class ToldKeys:
    """What the server says of organizations' keys."""

    def __init__(self, identities) -> None:
        self.keys = {i: identity.organization_keys(i) for i, identity in identities.items()}
        self.calls = 0

    def __call__(self, collaboration: int) -> list[dict]:
        self.calls += 1
        return list(self.keys.values())


@pytest.fixture
def told(identities) -> ToldKeys:
    return ToldKeys(identities)


@pytest.fixture
def payloads(identities, told, tmp_path) -> Payloads:
    """Of user 9 of organization 1."""
    return Payloads(Owner(1, 9), told, Keyring(identities[1], Pins(tmp_path / "pins.json")))


def read_input(sealed: str, identity: Identity) -> tuple[crypto.Header, bytes]:
    opened = crypto.unseal([unb64(sealed)], identity)
    return opened.header, b"".join(opened.chunks)


def answer(identities, signer=2, raw=b"[1]", **changes) -> bytes:
    """A result of organization 2's run for organization 1, as its proxy makes it."""
    now = int(time.time())
    context = Context(
        direction="result",
        task=TASK.uuid,
        parent=None,
        collaboration=1,
        sender=2,
        user=None,
        recipient=1,
        image="image:1",
        databases=TASK.databases,
        attempt=1,
        created=now,
        expires=now + 1000,
    )
    context = replace(context, **changes)
    recipients = [identities[1].public_pem]
    return b"".join(crypto.seal([raw], context, recipients=recipients, identity=identities[signer]))


def test_an_input_is_sealed_for_each_organization(payloads, identities) -> None:
    sealed = payloads.seal_input(RAW, TASK, [2, 3])
    for organization, text in sealed.items():
        assert detect_format(text) is Format.NATIVE
        header, plaintext = read_input(text, identities[organization])
        assert plaintext == RAW
        context = header.context
        assert (context.direction, context.task, context.parent) == ("input", TASK.uuid, None)
        assert (context.sender, context.user, context.recipient) == (1, 9, organization)
        assert (context.collaboration, context.image, context.databases) == (1, "image:1", TASK.databases)
        assert context.attempt is None
        assert 0 < context.expires - context.created <= 30 * 24 * 3600
    with pytest.raises(DecryptionError):
        read_input(sealed[2], identities[3])


def test_keys_are_asked_for_once(payloads, told, identities) -> None:
    payloads.seal_input(RAW, TASK, [2, 3])
    payloads.seal_input(RAW, TASK, [3])
    payloads.open(answer(identities), "result", TASK, 2)
    assert told.calls == 1


@pytest.mark.parametrize(
    ("encrypted", "accept", "with_keys", "expected"),
    [
        (True, "native", True, Format.NATIVE),
        (True, "both", True, Format.NATIVE),
        (True, "vantage6", True, Format.VANTAGE6),
        (False, "native", False, Format.PLAIN),
    ],
)
def test_the_best_format_that_there_is(payloads, encrypted, accept, with_keys, expected) -> None:
    if not with_keys:
        payloads.keyring = None
    collaboration = Collaboration(1, encrypted, accept)
    assert payloads.format_for(collaboration) is expected
    sealed = payloads.seal_input(RAW, replace(TASK, collaboration=collaboration), [2])
    assert detect_format(sealed[2]) is expected


def test_a_key_file_that_can_not_sign(payloads, identities, tmp_path) -> None:
    old = replace(identities[1], signing=None)
    payloads.keyring = Keyring(old, Pins(tmp_path / "other.json"))
    assert payloads.format_for(replace(NATIVE, accept="both")) is Format.VANTAGE6
    with pytest.raises(MissingKey, match="no signing key"):
        payloads.seal_input(RAW, TASK, [2])


def test_nothing_goes_out_in_the_clear_by_mistake(payloads) -> None:
    with pytest.raises(ConfigurationError, match=r"is not encrypted, and you have.*setup_encryption\(None\)"):
        payloads.seal_input(RAW, replace(TASK, collaboration=PLAIN), [2])
    payloads.keyring = None
    with pytest.raises(ConfigurationError, match="is encrypted: call setup_encryption"):
        payloads.seal_input(RAW, TASK, [2])


def test_vantage6s_format(payloads, identities) -> None:
    task = replace(TASK, collaboration=replace(NATIVE, accept="both"))
    sealed = payloads.seal_input(RAW, replace(task, collaboration=replace(NATIVE, accept="vantage6")), [2])[2]
    assert crypto.vantage6_decrypt(sealed, identities[2]) == RAW
    result = to_stored(crypto.vantage6_encrypt(b'{"a": 1}', identities[1].public_pem), Format.VANTAGE6)
    assert payloads.open(result, "result", task, 2) == b'{"a": 1}'


# --- keys ------------------------------------------------------------------------------------------------


def test_changed_keys_are_refused(payloads, told, identities, tmp_path) -> None:
    payloads.seal_input(RAW, TASK, [2])
    told.keys[2] = identities[3].organization_keys(2)
    later = Payloads(Owner(1, 9), told, Keyring(identities[1], Pins(tmp_path / "pins.json")))
    with pytest.raises(KeyChanged, match="organization 2"):
        later.seal_input(RAW, TASK, [2])


def test_unconfirmed_keys_are_refused_where_that_is_wanted(told, identities, tmp_path) -> None:
    pins = Pins(tmp_path / "pins.json", require_confirmed=True)
    with pytest.raises(KeyNotConfirmed):
        Payloads(Owner(1, 9), told, Keyring(identities[1], pins)).seal_input(RAW, TASK, [2])


def test_the_servers_keys_of_ones_own_organization_are_not_believed(payloads, told, identities) -> None:
    """Even when they are seen for the first time."""
    told.keys[1] = identities[3].organization_keys(1)
    with pytest.raises(KeyChanged, match="your own organization 1"):
        payloads.seal_input(RAW, TASK, [1])


def test_ones_own_keys(payloads, identities, tmp_path) -> None:
    assert read_input(payloads.seal_input(RAW, TASK, [1])[1], identities[1])[1] == RAW
    payloads.keyring = Keyring(certified(identities), Pins(tmp_path / "user.json"))
    payloads._keys.clear()
    assert read_input(payloads.seal_input(RAW, TASK, [1])[1], identities[1])[1] == RAW


@pytest.mark.parametrize("lacking", [None, ""])
def test_an_organization_without_keys(payloads, told, lacking) -> None:
    if lacking is None:
        del told.keys[3]
    else:
        told.keys[3]["public_key"] = ""
    with pytest.raises(MissingKey, match="organization 3"):
        payloads.seal_input(RAW, TASK, [2, 3])


def test_keys_that_were_put_together(payloads, told, identities) -> None:
    """A server that swaps only the encryption key: the signing key does not vouch for it."""
    told.keys[2]["public_key"] = b64(identities[3].public_pem)
    with pytest.raises(CryptoError):
        payloads.seal_input(RAW, TASK, [2])


# --- results ---------------------------------------------------------------------------------------------


def test_a_result_is_verified_and_opened(payloads, identities) -> None:
    assert payloads.open(answer(identities), "result", TASK, 2) == b"[1]"


@pytest.mark.parametrize("created", [1_000_000, 10_000_000_000], ids=["years later", "dated by a clock that is ahead"])
def test_a_result_is_read_whatever_its_date(payloads, identities, created) -> None:
    dated = answer(identities, created=created, expires=created + 500)
    assert payloads.open(dated, "result", TASK, 2) == b"[1]"


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "log"},
        {"direction": "input", "attempt": None},
        {"task": "22222222-2222-4222-8222-222222222222"},
        {"collaboration": 2},
        {"image": "image:2"},
        {"sender": 3},
        {"recipient": 3},
        {"attempt": None},
    ],
    ids="-".join,
)
def test_a_genuine_result_in_the_wrong_place(payloads, identities, change) -> None:
    with pytest.raises(ContextError):
        payloads.open(answer(identities, **change), "result", TASK, 2)


def test_a_result_that_another_organization_made(payloads, identities) -> None:
    """It claims to be from organization 2, and organization 3 signed it."""
    with pytest.raises(SignatureError):
        payloads.open(answer(identities, signer=3), "result", TASK, 2)


def test_a_result_of_one_organization_shown_as_anothers(payloads, identities) -> None:
    with pytest.raises(ContextError, match="another organization"):
        payloads.open(answer(identities), "result", TASK, 3)


@pytest.mark.parametrize("position", [4, 200, -65, -1])
def test_an_altered_result(payloads, identities, position) -> None:
    whole = bytearray(answer(identities, raw=b"precious" * 100))
    whole[position] ^= 1
    with pytest.raises(CryptoError) as caught:
        payloads.open(bytes(whole), "result", TASK, 2)
    assert "precious" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_result_that_was_cut_off(payloads, identities, cut) -> None:
    with pytest.raises(CryptoError):
        payloads.open(answer(identities)[:cut], "result", TASK, 2)


@pytest.mark.parametrize("accept", ["native", "vantage6", "both"])
def test_a_result_in_the_clear_is_not_believed(payloads, accept) -> None:
    task = replace(TASK, collaboration=replace(NATIVE, accept=accept))
    with pytest.raises(DecryptionError):
        payloads.open(b'{"forged": 1}', "result", task, 2)


def test_a_result_in_a_weaker_format_is_not_believed(payloads, identities) -> None:
    forged = crypto.vantage6_encrypt(b"[1]", identities[1].public_pem).encode()
    with pytest.raises(DecryptionError, match="not encrypted as it should be"):
        payloads.open(forged, "result", TASK, 2)


def test_without_encryption(payloads) -> None:
    payloads.keyring = None
    plain = replace(TASK, collaboration=PLAIN)
    assert payloads.open(b"SKR1 is just text here", "result", plain, 2) == b"SKR1 is just text here"
    with pytest.raises(ConfigurationError, match="setup_encryption"):
        payloads.open(b"SKR1", "result", TASK, 2)


# --- a user's own file -----------------------------------------------------------------------------------


def certified(identities, organization=1) -> Identity:
    fresh = identities[3].signing
    certificate = Certificate.issue(identities[1].signing, organization, 9, fresh.public_key().public_bytes_raw())
    return Identity(identities[1].encryption, fresh, certificate)


def test_a_users_own_key_signs(payloads, identities, tmp_path) -> None:
    payloads.keyring = Keyring(certified(identities), Pins(tmp_path / "user.json"))
    header, _ = read_input(payloads.seal_input(RAW, TASK, [2])[2], identities[2])
    assert header.certificate.user == 9


def test_a_users_file_must_fit_the_organizations_keys(identities, tmp_path) -> None:
    keyring = Keyring(certified(identities), Pins(tmp_path / "user.json"))
    keyring.check_certified(1, b64(identities[1].public_pem), "u.pem")
    with pytest.raises(KeyChanged, match=r"u\.pem.*skerry key certify"):
        keyring.check_certified(1, b64(identities[2].public_pem), "u.pem")
    with pytest.raises(KeyChanged):
        keyring.check_certified(2, b64(identities[1].public_pem), "u.pem")
