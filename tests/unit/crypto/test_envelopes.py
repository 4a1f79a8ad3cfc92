from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry import crypto
from skerry.errors import ContextError, DecryptionError, KeyFileError, MissingKey, SignatureError
from skerry.keys import Certificate, Identity, OrganizationKeys
from skerry.trust import Expected, verify
from skerry.wire import Context, canonical

pytestmark = pytest.mark.unit
NOW = 1_800_000_000
HOLDS_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def context(**changes) -> Context:
    base = Context(
        direction="input",
        task="6f6b1e0e-5a3e-4a7e-9a55-0d2f3c8b1a01",
        parent=None,
        collaboration=1,
        sender=1,
        user=7,
        recipient=2,
        image="example/mean:1",
        databases=({"label": "default"},),
        attempt=None,
        created=NOW,
        expires=NOW + 3600,
    )
    return replace(base, **changes)


def expected(**changes) -> Expected:
    c = context()
    return replace(
        Expected("input", c.task, 1, recipient=2, image=c.image, databases=[{"label": "default"}]),
        **changes,
    )


def sealed(plaintext: bytes, sender: Identity, recipient: Identity, ctx: Context | None = None, chain=()) -> bytes:
    pieces = crypto.seal([plaintext], ctx or context(), recipients=[recipient.public_pem], identity=sender, chain=chain)
    return b"".join(pieces)


def read(envelope: bytes, identity: Identity, piece: int = 1000) -> tuple[crypto.Opened, bytes]:
    opened = crypto.unseal((envelope[i : i + piece] for i in range(0, len(envelope), piece)), identity)
    return opened, b"".join(opened.chunks)


def read_and_verify(envelope: bytes, recipient: Identity, sender: Identity) -> None:
    opened, _ = read(envelope, recipient)
    verify(opened.header, opened.proof, expected(), directory(o1=sender), NOW)


def directory(**identities: Identity):
    keys = {
        int(name[1:]): OrganizationKeys.from_wire(identity.organization_keys(int(name[1:])))
        for name, identity in identities.items()
    }
    return keys.__getitem__


@HOLDS_FIXTURES
@given(plaintext=st.binary(max_size=1000), piece=st.integers(1, 500))
def test_what_was_sealed_is_read_in_pieces_of_any_size(alice, bob, plaintext, piece) -> None:
    opened, text = read(sealed(plaintext, alice, bob), bob, piece)
    assert text == plaintext
    assert opened.header.context == context()


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_sizes_around_the_chunk_boundary(alice, bob, chunks, extra) -> None:
    plaintext = bytes(range(256)) * (crypto.CHUNK_SIZE // 256) * chunks + b"x"
    plaintext = plaintext[: crypto.CHUNK_SIZE * chunks + extra]
    assert read(sealed(plaintext, alice, bob), bob)[1] == plaintext


def test_only_the_recipient_reads_it(alice, bob, carol) -> None:
    with pytest.raises(DecryptionError):
        crypto.unseal([sealed(b"secret", alice, bob)], carol)


@HOLDS_FIXTURES
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(alice, bob, data) -> None:
    envelope = bytearray(sealed(b"some text", alice, bob))
    position = data.draw(st.integers(0, len(envelope) * 8 - 1))
    envelope[position // 8] ^= 1 << position % 8
    with pytest.raises((DecryptionError, SignatureError, ContextError, ValueError)):
        read_and_verify(bytes(envelope), bob, alice)


@HOLDS_FIXTURES
@given(data=st.data())
def test_a_truncated_envelope_is_noticed(alice, bob, data) -> None:
    envelope = sealed(b"some text" * 20, alice, bob)
    with pytest.raises((DecryptionError, ValueError)):
        read(envelope[: data.draw(st.integers(0, len(envelope) - 1))], bob)


def test_swapped_dropped_and_repeated_chunks_are_noticed(alice, bob) -> None:
    envelope = sealed(b"a" * crypto.CHUNK_SIZE * 3, alice, bob)
    head = len(crypto.parse_header(envelope).head)
    size = crypto.CHUNK_SIZE + 16
    one, two, three, rest = (
        envelope[head : head + size],
        envelope[head + size : head + 2 * size],
        envelope[head + 2 * size : -64],
        envelope[-64:],
    )
    for body in (two + one + three, one + three, one + one + two + three, one + two):
        with pytest.raises(DecryptionError):
            read(envelope[:head] + body + rest, bob)


def test_chunks_of_another_envelope_do_not_fit(alice, bob) -> None:
    first, second = sealed(b"first", alice, bob), sealed(b"again", alice, bob)
    head = len(crypto.parse_header(first).head)
    with pytest.raises(DecryptionError):
        read(first[:head] + second[len(crypto.parse_header(second).head) :], bob)


def test_a_genuine_envelope_names_its_sender(alice, bob) -> None:
    opened, _ = read(sealed(b"x", alice, bob), bob)
    sender = verify(opened.header, opened.proof, expected(), directory(o1=alice), NOW)
    assert (sender.organization, sender.user, sender.origin, sender.signed) == (1, 7, 1, True)


def test_someone_elses_signature_is_refused(alice, bob, carol) -> None:
    opened, _ = read(sealed(b"x", carol, bob), bob)
    with pytest.raises(SignatureError):
        verify(opened.header, opened.proof, expected(), directory(o1=alice), NOW)


def test_a_recipient_can_not_change_the_text_for_another_recipient(alice, bob, carol) -> None:
    """Both hold the payload key; the signature over the ciphertext is what stops one from fooling the other."""
    pieces = crypto.seal([b"pay 1"], context(), recipients=[bob.public_pem, carol.public_pem], identity=alice)
    envelope = b"".join(pieces)
    header = crypto.parse_header(envelope)
    cipher = crypto.AESGCM(crypto._unwrap(header, carol))
    aad = crypto.hashlib.sha256(header.head).digest()
    forged = cipher.encrypt(crypto._nonce(header.nonce_prefix, 0, last=True), b"pay 9", aad)
    opened, text = read(header.head + forged + envelope[-64:], bob)
    assert text == b"pay 9"
    with pytest.raises(SignatureError):
        verify(opened.header, opened.proof, expected(), directory(o1=alice), NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "result"},
        {"task": "another"},
        {"collaboration": 9},
        {"recipient": 9},
        {"image": "example/mean:2"},
        {"databases": [{"label": "other"}]},
        {"databases": [{"label": "default", "query": "select 1"}]},
        {"attempt": 1},
        {"sender": 3},
    ],
)
def test_an_envelope_for_something_else_is_refused(alice, bob, change) -> None:
    opened, _ = read(sealed(b"x", alice, bob), bob)
    with pytest.raises(ContextError):
        verify(opened.header, opened.proof, expected(**change), directory(o1=alice), NOW)


@pytest.mark.parametrize(
    ("created", "expires"),
    [(NOW - 7200, NOW - 1), (NOW + 301, NOW + 3600), (NOW, NOW + 31 * 86400), (NOW + 10, NOW + 5)],
)
def test_times_that_are_refused(alice, bob, created, expires) -> None:
    opened, _ = read(sealed(b"x", alice, bob, context(created=created, expires=expires)), bob)
    with pytest.raises(ContextError):
        verify(opened.header, opened.proof, expected(), directory(o1=alice), NOW)


@pytest.mark.parametrize("days", [2 * 365, -1], ids=["years later", "its node's clock was a day ahead"])
def test_a_result_may_be_read_at_any_time(alice, bob, days) -> None:
    opened, _ = read(sealed(b"x", alice, bob, context(direction="result", attempt=1)), bob)
    wanted = expected(direction="result", attempt=1)
    assert verify(opened.header, opened.proof, wanted, directory(o1=alice), NOW + days * 86400).organization == 1


def test_a_user_signs_with_a_certificate(alice, bob, carol) -> None:
    certificate = replace(
        Certificate.issue(alice.require_signing(), 1, 7, carol.require_signing().public_key().public_bytes_raw())
    )
    user = Identity(alice.encryption, carol.signing, certificate)
    ctx = context(created=certificate.created, expires=certificate.created + 60)
    opened, _ = read(sealed(b"x", user, bob, ctx), bob)
    at = certificate.created
    assert verify(opened.header, opened.proof, expected(), directory(o1=alice), at).user == 7
    with pytest.raises(SignatureError):
        verify(opened.header, opened.proof, expected(), directory(o1=bob), at)
    impostor, _ = read(sealed(b"x", user, bob, replace(ctx, user=8)), bob)
    with pytest.raises(SignatureError):
        verify(impostor.header, impostor.proof, expected(), directory(o1=alice), at)
    late, _ = read(sealed(b"x", user, bob, replace(ctx, created=certificate.expires + 1, expires=2**40)), bob)
    with pytest.raises((SignatureError, ContextError)):
        verify(late.header, late.proof, expected(), directory(o1=alice), certificate.expires + 2)


def child_of(proof: crypto.Proof, parent: Context, **changes) -> Context:
    return context(task="child", parent=parent.task, sender=parent.recipient, recipient=3, user=None, **changes)


def test_a_child_task_shows_which_user_stands_behind_it(alice, bob, carol) -> None:
    root, _ = read(sealed(b"x", alice, bob), bob)
    child = sealed(b"y", bob, carol, child_of(root.proof, context()), chain=[root.proof])
    opened, _ = read(child, carol)
    wanted = expected(task="child", recipient=3)
    sender = verify(opened.header, opened.proof, wanted, directory(o1=alice, o2=bob), NOW)
    assert (sender.organization, sender.user, sender.origin) == (2, 7, 1)


@pytest.mark.parametrize("change", [{"image": "evil"}, {"collaboration": 2}, {"parent": "another"}, {"parent": None}])
def test_a_chain_that_leads_elsewhere_is_refused(alice, bob, carol, change) -> None:
    root, _ = read(sealed(b"x", alice, bob), bob)
    ctx = replace(child_of(root.proof, context()), **change)
    opened, _ = read(sealed(b"y", bob, carol, ctx, chain=[root.proof]), carol)
    wanted = expected(task="child", recipient=3, image=ctx.image, collaboration=ctx.collaboration)
    with pytest.raises(SignatureError):
        verify(opened.header, opened.proof, wanted, directory(o1=alice, o2=bob), NOW)


def test_a_child_without_a_chain_and_a_forged_chain_are_refused(alice, bob, carol) -> None:
    root, _ = read(sealed(b"x", carol, bob), bob)  # carol pretends to be organization 1
    for chain in ([], [root.proof]):
        opened, _ = read(sealed(b"y", bob, carol, child_of(root.proof, context()), chain=chain), carol)
        with pytest.raises(SignatureError):
            verify(opened.header, opened.proof, expected(task="child", recipient=3), directory(o1=alice, o2=bob), NOW)


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        {"v": 2},
        {"v": 1, "context": {}, "certificate": None, "chain": [], "chunk_size": 1, "nonce_prefix": "", "keys": []},
    ],
)
def test_hostile_headers_get_a_sentence(header) -> None:
    body = canonical(header)
    with pytest.raises(ValueError, match="envelope"):
        crypto.parse_header(crypto.MAGIC + len(body).to_bytes(4, "big") + body)


@HOLDS_FIXTURES
@given(junk=st.binary(max_size=200))
def test_junk_is_no_envelope(junk) -> None:
    with pytest.raises(ValueError, match=r"envelope|base64"):
        crypto.parse_header(crypto.MAGIC + junk)


@HOLDS_FIXTURES
@given(plaintext=st.binary(max_size=300).filter(lambda raw: not crypto._is_json(raw)))
def test_vantage6_round_trip(alice, plaintext) -> None:
    assert crypto.vantage6_decrypt(crypto.vantage6_encrypt(plaintext, alice.public_pem), alice) in (
        plaintext,
        crypto._undo_double_base64(plaintext),
    )


def test_vantage6_failures_can_not_be_told_apart(alice, bob) -> None:
    text = crypto.vantage6_encrypt(b'{"method": "mean"}', alice.public_pem)
    assert crypto.vantage6_decrypt(text, bob) != b'{"method": "mean"}'
    for malformed in ("", "a$b", "a$b$c$d", "!$!$!"):
        with pytest.raises(DecryptionError):
            crypto.vantage6_decrypt(malformed, alice)


def test_what_vantage6s_web_client_encodes_twice_is_read(alice) -> None:
    inner = json.dumps({"method": "mean"}).encode()
    twice = crypto.b64(inner).encode()
    assert crypto.vantage6_decrypt(crypto.vantage6_encrypt(twice, alice.public_pem), alice) == inner


def test_a_key_file_round_trip(alice, bob, tmp_path) -> None:
    path = tmp_path / "key.pem"
    certificate = Certificate.issue(bob.require_signing(), 1, 2, b"k" * 32)
    Identity(alice.encryption, alice.signing, certificate).save(path)
    loaded = Identity.load(path)
    assert loaded.public_pem == alice.public_pem
    assert loaded.certificate == certificate
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError, match="never overwritten"):
        alice.save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Identity.load(path)


def test_a_key_file_of_vantage6_can_decrypt_but_not_sign(alice, bob, tmp_path) -> None:
    old = Identity.parse(Identity(alice.encryption).dump())
    assert old.organization_keys(1)["signing_key"] == ""
    with pytest.raises(MissingKey, match="skerry key"):
        sealed(b"x", old, bob)


def test_a_binding_by_another_key_is_refused(alice, bob) -> None:
    keys = alice.organization_keys(1)
    with pytest.raises(SignatureError):
        OrganizationKeys.from_wire({**keys, "public_key": bob.organization_keys(1)["public_key"]})


def test_tiny_pieces_take_no_more_memory_than_they_hold(alice, bob) -> None:
    """Who sends them chooses how small they are."""
    envelope = sealed(os.urandom(2 * crypto.CHUNK_SIZE), alice, bob)
    tracemalloc.start()
    opened = crypto.unseal((envelope[i : i + 1] for i in range(len(envelope))), bob)
    next(opened.chunks)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * crypto.CHUNK_SIZE
    assert sum(map(len, opened.chunks)) == crypto.CHUNK_SIZE
