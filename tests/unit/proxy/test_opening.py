"""Opening an input: who asked, for what, and all that makes the proxy refuse."""

from __future__ import annotations

import time
import uuid

import pytest
from federation import DATABASES, IMAGE, input_context, make_input, make_order, seal

from skerry.errors import (
    ConfigurationError,
    ContextError,
    DecryptionError,
    KeyChanged,
    KeyNotConfirmed,
    MissingKey,
    NotFound,
    ServerUnreachable,
    SignatureError,
    SkerryError,
)
from skerry.keys import Certificate, Identity
from skerry_proxy import upstream
from skerry_proxy.control import find_kind
from skerry_proxy.settings import Settings, admitted_formats

pytestmark = pytest.mark.unit
PLAINTEXT = b'{"method": "central", "kwargs": {"column": "age"}}'


@pytest.mark.parametrize("fmt", ["native", "vantage6", "plain"])
@pytest.mark.parametrize("inline", [True, False])
def test_an_input_is_decrypted_and_described(  # noqa: PLR0917 - fixtures
    make_bench, fake, alice, bob, fmt, inline
) -> None:
    bench = make_bench(fmt)
    task_uuid, stored = make_input(fmt, PLAINTEXT, alice, bob)
    fake.inputs[7] = stored
    answer, plaintext = bench.open_order(make_order(fmt, stored if inline else None, task_uuid=task_uuid))
    assert plaintext == PLAINTEXT
    assert answer["method"] == "central"
    assert answer["databases"] == ["default"]
    assert answer["image"] == IMAGE
    signed = fmt == "native"
    assert answer["sender"] == {"organization": 1, "user": None if signed else 4, "origin": 1, "signed": signed}


def test_the_user_is_the_one_that_the_certificate_names(bench, alice, bob) -> None:
    assert alice.signing is not None
    assert bob.signing is not None
    certificate = Certificate.issue(alice.signing, 1, 4, bob.signing.public_key().public_bytes_raw())
    person = Identity(alice.encryption, bob.signing, certificate)
    task_uuid = str(uuid.uuid4())
    stored = seal(PLAINTEXT, person, bob, input_context(task_uuid, user=4))
    order = make_order("native", stored, task_uuid=task_uuid, init_user_id=99)
    assert bench.open_order(order)[0]["sender"]["user"] == 4


def refused(bench, order: dict) -> Exception:
    """The error; nothing of the plaintext may be left."""
    with pytest.raises((SkerryError, ValueError)) as raised:
        bench.open_order(order)
    assert (bench.folder / "opened").read_bytes() == b""
    return raised.value


@pytest.mark.parametrize(
    "claim",
    [
        {"image": "evil/image"},
        {"uuid": "6f6b1e0e-5a3e-4a7e-9a55-0d2f3c8b1a01"},
        {"databases": []},
        {"databases": [{"label": "secret"}]},
        {"databases": [{"label": "default", "query": "SELECT *"}]},
    ],
)
def test_an_order_that_is_not_the_envelopes_is_refused(bench, alice, bob, claim) -> None:
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    error = refused(bench, make_order("native", stored, task_uuid=task_uuid, **claim))
    assert isinstance(error, ContextError)
    assert find_kind(error) == "refused"


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "result"},
        {"recipient": 3},
        {"collaboration": 2},
        {"attempt": 1},
        {"image": "other"},
        {"databases": ()},
        {"created": int(time.time()) + 3600, "expires": int(time.time()) + 7200},
        {"created": int(time.time()) - 7200, "expires": int(time.time()) - 3600},
    ],
)
def test_an_envelope_of_another_context_is_refused(bench, alice, bob, change) -> None:
    task_uuid = str(uuid.uuid4())
    stored = seal(PLAINTEXT, alice, bob, input_context(task_uuid, **change))
    assert isinstance(refused(bench, make_order("native", stored, task_uuid=task_uuid)), ContextError)


@pytest.mark.parametrize("change", [{"organization_id": 3}, {"node_id": 6}])
def test_an_order_for_another_node_is_refused(bench, alice, bob, change) -> None:
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    assert isinstance(refused(bench, make_order("native", stored, task_uuid=task_uuid) | change), ContextError)


def test_an_order_of_another_collaboration_is_refused(bench, alice, bob) -> None:
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    order = make_order("native", stored, task_uuid=task_uuid, collaboration_id=2)
    assert isinstance(refused(bench, order), ContextError)


@pytest.mark.parametrize("position", [0, 5, 60, -1, -70, -100])
def test_a_flipped_bit_is_refused(bench, alice, bob, position) -> None:
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    bent = bytearray(stored)
    bent[position] ^= 1
    error = refused(bench, make_order("native", bytes(bent), task_uuid=task_uuid))
    assert isinstance(error, (ValueError, DecryptionError, SignatureError))
    assert find_kind(error) in {"invalid", "refused"}


def test_a_cut_off_input_is_refused(bench, fake, alice, bob) -> None:
    task_uuid, stored = make_input("native", b'{"method": "m", "args": [' + b"1," * 100_000 + b"1]}", alice, bob)
    fake.inputs[7] = stored[:-100_000]
    assert isinstance(refused(bench, make_order("native", None, task_uuid=task_uuid)), DecryptionError)


def test_a_signature_of_somebody_else_is_refused(bench, bob, carol) -> None:
    task_uuid = str(uuid.uuid4())
    stored = seal(PLAINTEXT, carol, bob, input_context(task_uuid))
    error = refused(bench, make_order("native", stored, task_uuid=task_uuid))
    assert isinstance(error, SignatureError)
    assert find_kind(error) == "refused"


def test_an_input_for_another_organization_is_invalid(bench, alice, carol) -> None:
    task_uuid = str(uuid.uuid4())
    stored = seal(PLAINTEXT, alice, carol, input_context(task_uuid))
    error = refused(bench, make_order("native", stored, task_uuid=task_uuid))
    assert find_kind(error) == "invalid"


def test_a_used_input_is_opened_for_its_run_and_attempt_only(make_bench, alice, bob) -> None:
    bench = make_bench()
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    order = make_order("native", stored, task_uuid=task_uuid)
    bench.open_order(order)
    assert bench.open_order(order)[1] == PLAINTEXT
    again = make_bench()  # the ledger outlives the process
    assert again.open_order(order)[1] == PLAINTEXT
    for change in ({"attempt": 2}, {"run": 8}):
        error = refused(again, order | change)
        assert isinstance(error, ContextError)
        assert find_kind(error) == "refused"


def test_a_changed_key_is_refused_and_named(make_bench, fake, alice, bob, carol) -> None:
    bench = make_bench()
    bench.open()
    fake.keys[0] = carol.organization_keys(1)
    task_uuid = str(uuid.uuid4())
    stored = seal(PLAINTEXT, carol, bob, input_context(task_uuid))
    error = refused(bench, make_order("native", stored, task_uuid=task_uuid))
    assert isinstance(error, KeyChanged)
    assert find_kind(error) == "refused"
    assert bench.open()["method"] == "central"  # what the pinned key signs is still good


def test_unconfirmed_keys_are_refused_where_the_owner_wants_to_confirm(make_bench) -> None:
    bench = make_bench(require_confirmed_keys=True)
    with pytest.raises(KeyNotConfirmed):
        bench.open()
    pins = bench.office.list_pins()
    assert [(pin["organization_id"], pin["confirmed"]) for pin in pins] == [(1, False), (2, True)]
    assert len(pins[0]["fingerprint"]) == 64


def test_a_sender_without_registered_keys_is_refused(bench, fake) -> None:
    fake.keys.clear()
    with pytest.raises(MissingKey) as raised:
        bench.open()
    assert find_kind(raised.value) == "refused"


@pytest.mark.parametrize("fmt", ["vantage6", "plain"])
def test_unsigned_inputs_are_refused_by_default(bench, alice, bob, fmt) -> None:
    task_uuid, stored = make_input(fmt, PLAINTEXT, alice, bob)
    error = refused_without_file(bench, make_order(fmt, stored, task_uuid=task_uuid))
    assert isinstance(error, SignatureError)
    assert find_kind(error) == "refused"


def test_plaintext_is_refused_in_an_encrypted_collaboration_that_admits_unsigned_tasks(make_bench, alice, bob) -> None:
    bench = make_bench("vantage6")
    task_uuid, stored = make_input("plain", PLAINTEXT, alice, bob)
    assert isinstance(refused_without_file(bench, make_order("plain", stored, task_uuid=task_uuid)), SignatureError)


def refused_without_file(bench, order: dict) -> Exception:
    with pytest.raises(SignatureError) as raised:
        bench.open_order(order)
    return raised.value


@pytest.mark.parametrize(
    ("encrypted", "accept", "unsigned", "admitted"),
    [
        (True, "native", False, {"native"}),
        (True, "native", True, {"native"}),
        (True, "vantage6", False, set()),
        (True, "vantage6", True, {"vantage6"}),
        (True, "both", False, {"native"}),
        (True, "both", True, {"native", "vantage6"}),
        (False, "native", False, set()),
        (False, "both", True, {"plain"}),
    ],
)
def test_which_formats_are_admitted(encrypted, accept, unsigned, admitted) -> None:
    assert admitted_formats(encrypted=encrypted, accept=accept, unsigned=unsigned) == admitted


@pytest.mark.parametrize("plaintext", [b"", b"{}", b"[]", b'{"method": 5}', b"\xff", b'{"method": "a", "method": "b"}'])
def test_what_is_not_an_input_is_invalid(bench, alice, bob, plaintext) -> None:
    task_uuid, stored = make_input("native", plaintext, alice, bob)
    assert find_kind(refused(bench, make_order("native", stored, task_uuid=task_uuid))) == "invalid"


def test_a_wrong_vantage6_payload_is_invalid(make_bench, alice, carol) -> None:
    bench = make_bench("vantage6")
    task_uuid, stored = make_input("vantage6", PLAINTEXT, alice, carol)
    assert find_kind(refused(bench, make_order("vantage6", stored, task_uuid=task_uuid))) == "invalid"
    assert find_kind(refused(bench, make_order("vantage6", b"\xff\xfe", task_uuid=task_uuid))) == "invalid"


def test_a_server_that_is_away_is_said_to_be(bench, fake, alice, bob, monkeypatch) -> None:
    monkeypatch.setattr(upstream, "PATIENCE", 0.0)
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    fake.inputs[7] = stored
    fake.faults += [("/input", "drop")] * 2
    error = refused(bench, make_order("native", None, task_uuid=task_uuid))
    assert isinstance(error, ServerUnreachable)
    assert find_kind(error) == "unreachable"
    fake.faults.append(("/input", "404"))
    fake.faults.pop(0)
    assert isinstance(refused(bench, make_order("native", None, task_uuid=task_uuid)), NotFound)


def test_an_input_that_the_server_has_lost_is_not_waited_for(bench, fake, alice, bob) -> None:
    task_uuid, stored = make_input("native", PLAINTEXT, alice, bob)
    fake.inputs[7] = stored
    fake.faults.append(("/input", "410"))
    assert find_kind(refused(bench, make_order("native", None, task_uuid=task_uuid))) == "invalid"


@pytest.mark.parametrize("missing", ["run", "attempt", "task", "input", "token", "format", "organization_id"])
def test_an_order_that_lacks_a_field_names_it(bench, missing) -> None:
    order = make_order("native", b"", task_uuid="u")
    del order[missing]
    with pytest.raises(ValueError, match=missing):
        bench.open_order(order)


@pytest.mark.parametrize(
    "change",
    [{"run": "7"}, {"run": True}, {"run": -1}, {"run": 2**70}, {"format": "pickle"}, {"input": 5}, {"input": "%"}],
)
def test_an_order_with_a_wrong_field_is_refused(bench, change) -> None:
    with pytest.raises(ValueError, match=next(iter(change)) if change != {"input": "%"} else "base64"):
        bench.open_order(make_order("native", b"", task_uuid="u") | change)


def test_databases_are_those_of_the_order(bench, alice, bob) -> None:
    task_uuid = str(uuid.uuid4())
    databases = [{"label": "b"}, {"label": "a", "query": "SELECT 1"}]
    stored = seal(PLAINTEXT, alice, bob, input_context(task_uuid, databases=tuple(databases)))
    answer, _ = bench.open_order(make_order("native", stored, task_uuid=task_uuid, databases=databases))
    assert answer["databases"] == ["b", "a"]
    assert answer["resume"]["databases"] == databases != DATABASES


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (b"", "JSON"),
        (b"[]", "JSON"),
        (b"{}", "server_url|collaboration|unsigned"),
        (b'{"pickle": 1}', "pickle"),
    ],
)
def test_settings_that_are_wrong_are_named(settings, word) -> None:
    with pytest.raises(ConfigurationError, match=word):
        Settings.parse(settings)
