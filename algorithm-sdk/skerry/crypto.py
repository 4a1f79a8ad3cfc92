"""Envelopes: bytes in, bytes out. The native format, and vantage6 4.x's for its clients.

The native format is described in ``docs/reference/native-protocol.md``, section 2; vantage6's in section 6 of its
contract: AES-256-CTR without authentication, its key wrapped by RSA PKCS#1 v1.5.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from skerry.errors import DecryptionError, SignatureError
from skerry.keys import Certificate, Identity, encryption_fingerprint, load_encryption_key, verify_signature
from skerry.wire import MAGIC, Context, b64, b64_pieces, canonical, unb64, unb64_pieces

CHUNK_SIZE = 64 * 1024
MAXIMUM_CHAIN = 8
_MAXIMUM_HEADER = 1024 * 1024
_MAXIMUM_CHUNK = 4 * 1024 * 1024
_KEY_BYTES = 32
_IV_BYTES = 16
_PREFIX_BYTES = 7
_TAG_BYTES = 16
_SIGNATURE_BYTES = 64
_LENGTH = struct.Struct(">I")
_SIGNED = b"skerry envelope v1\0"
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_LONGEST_FIELD = 64 * 1024
_SMALL = 4096
_LOOKED_AT = 64 * 1024
"""Bytes of a vantage6 plaintext by which it is told whether it was wrapped in base64 once more; a multiple of 4."""
_JSON_STARTS = frozenset(bytes([byte]) for byte in b'{["-0123456789tfn \t\r\n')
_UNREADABLE = "The payload can't be decrypted: it was altered on its way, or it is for someone else."


@dataclass(frozen=True, slots=True)
class Proof:
    """That someone signed an envelope, without its payload: what the signature covers, and the signature."""

    head: bytes
    body_sha256: bytes
    signature: bytes

    def verify(self, signing_key: bytes) -> None:
        """Raises SignatureError unless this key signed the envelope."""
        verify_signature(signing_key, self.signature, _signed_message(self.head, self.body_sha256))

    def as_dict(self) -> dict[str, str]:
        return {"head": b64(self.head), "body_sha256": self.body_sha256.hex(), "signature": b64(self.signature)}

    @classmethod
    def parse(cls, value: Any) -> Proof:
        """Raises ValueError for anything that is not a proof."""
        if not isinstance(value, dict) or set(value) != {"head", "body_sha256", "signature"}:
            raise ValueError("A link of the envelope's chain is malformed.")
        if not all(isinstance(part, str) for part in value.values()):
            raise ValueError("A link of the envelope's chain is malformed.")
        return cls(unb64(value["head"]), bytes.fromhex(value["body_sha256"]), unb64(value["signature"]))


@dataclass(frozen=True, slots=True)
class Header:
    """All of an envelope that can be read without a key. ``head`` is its bytes as they were signed."""

    context: Context
    certificate: Certificate | None
    chain: tuple[Proof, ...]
    chunk_size: int
    nonce_prefix: bytes
    keys: tuple[tuple[str, bytes], ...]
    head: bytes


def parse_header(start: bytes) -> Header:
    """The header of an envelope, given its first bytes (more than the header do no harm).

    Nothing of it is verified yet. Raises ValueError, with a sentence, for anything that is not an envelope.
    """
    size = _header_size(start)
    if len(start) < size:
        raise ValueError("The envelope is cut off in its header.")
    return _decode_header(start[:size])


def seal(
    plaintext: Iterable[bytes],
    context: Context,
    *,
    recipients: Sequence[bytes],
    identity: Identity,
    chain: Sequence[Proof] = (),
) -> Iterator[bytes]:
    """An envelope, piece by piece, for the holders of the recipients' PEM keys, signed by the identity.

    Memory stays at a few chunks. Raises MissingKey when the identity has no signing key.
    """
    signer = identity.require_signing()
    key, prefix = os.urandom(_KEY_BYTES), os.urandom(_PREFIX_BYTES)
    head = _encode_header(context, identity.certificate, chain, prefix, _wrap(key, recipients))
    yield head
    cipher, aad, body = AESGCM(key), hashlib.sha256(head).digest(), hashlib.sha256()
    for index, (chunk, last) in enumerate(_rechunk(plaintext)):
        sealed = cipher.encrypt(_nonce(prefix, index, last=last), chunk, aad)
        body.update(sealed)
        yield sealed
    yield signer.sign(_signed_message(head, body.digest()))


@dataclass(slots=True)
class Opened:
    """An envelope that is being read.

    ``chunks`` yields the plaintext and raises DecryptionError; what it yielded is to be believed only when it has
    ended without raising, and the author only when ``proof`` (there from then on) was verified too.
    """

    header: Header
    chunks: Iterator[bytes] = field(init=False)
    _proof: Proof | None = None

    @property
    def proof(self) -> Proof:
        if self._proof is None:
            raise SignatureError("The envelope has not been read to its end, so its signature is not known yet.")
        return self._proof


def unseal(envelope: Iterable[bytes], identity: Identity) -> Opened:
    """Starts to read an envelope; raises ValueError when it is none, DecryptionError when it is for someone else."""
    reader = _Reader(iter(envelope))
    start = reader.peek(len(MAGIC) + _LENGTH.size)
    header = _decode_header(bytes(reader.take(_header_size(start))))
    opened = Opened(header)
    opened.chunks = _decrypt(reader, AESGCM(_unwrap(header, identity)), opened)
    return opened


def vantage6_encrypt(plaintext: bytes, public_key_pem: bytes) -> str:
    """The string form of vantage6 4.x: three base64 fields joined by dollars. Not authenticated."""
    head, encryptor = _start_vantage6(public_key_pem)
    return head + b64(encryptor.update(plaintext) + encryptor.finalize())


def vantage6_seal(plaintext: Iterable[bytes], public_key_pem: bytes) -> Iterator[bytes]:
    """The same text, piece by piece, in constant memory."""
    head, encryptor = _start_vantage6(public_key_pem)
    yield head.encode("ascii")
    yield from b64_pieces(encryptor.update(piece) for piece in plaintext)


def vantage6_decrypt(text: str, identity: Identity) -> bytes:
    """The plaintext of a vantage6 string.

    A wrong key or an altered text gives garbage, never an error that tells more (the format has no authentication,
    and an error that can be told apart would be an oracle for its padding). Raises DecryptionError only for
    a text that has not the form. Its web client wraps the key and the text in base64 once more: undone here.
    """
    return b"".join(vantage6_unseal([text.encode("ascii", "replace")], identity))


def vantage6_unseal(text: Iterable[bytes], identity: Identity) -> Iterator[bytes]:
    """The same, piece by piece, in constant memory. Reading on raises DecryptionError for what has not the form."""
    reader = _Reader(iter(text))
    try:
        wrapped, iv = (unb64(reader.take_field().decode("ascii")) for _ in range(2))
        if len(iv) != _IV_BYTES:
            raise DecryptionError(_UNREADABLE)
        decryptor = Cipher(AES(_unwrap_vantage6(wrapped, identity)), CTR(iv)).decryptor()
        yield from _undo_double_base64(decryptor.update(piece) for piece in unb64_pieces(reader.rest()))
    except ValueError as error:
        raise DecryptionError(_UNREADABLE) from error


# --- the native format, inside ---------------------------------------------------------------------------


def _signed_message(head: bytes, body_sha256: bytes) -> bytes:
    return _SIGNED + hashlib.sha256(head).digest() + body_sha256


def _nonce(prefix: bytes, index: int, *, last: bool) -> bytes:
    return prefix + _LENGTH.pack(index) + bytes([last])


def _wrap(key: bytes, recipients: Sequence[bytes]) -> list[dict[str, str]]:
    loaded = [load_encryption_key(pem) for pem in recipients]
    return [{"recipient": encryption_fingerprint(k), "wrapped": b64(k.encrypt(key, _OAEP))} for k in loaded]


def _unwrap(header: Header, identity: Identity) -> bytes:
    wrapped = dict(header.keys)
    own = (key for key in identity.decryption_keys if encryption_fingerprint(key.public_key()) in wrapped)
    private = next(own, None)
    if private is None:
        raise DecryptionError(_UNREADABLE)
    try:
        key = private.decrypt(wrapped[encryption_fingerprint(private.public_key())], _OAEP)
    except ValueError as error:
        raise DecryptionError(_UNREADABLE) from error
    if len(key) != _KEY_BYTES:
        raise DecryptionError(_UNREADABLE)
    return key


def _encode_header(
    context: Context,
    certificate: Certificate | None,
    chain: Sequence[Proof],
    prefix: bytes,
    keys: list[dict[str, str]],
) -> bytes:
    body = canonical(
        {
            "v": 1,
            "context": context.as_dict(),
            "certificate": certificate and certificate.as_dict(),
            "chain": [proof.as_dict() for proof in chain],
            "chunk_size": CHUNK_SIZE,
            "nonce_prefix": b64(prefix),
            "keys": keys,
        }
    )
    if len(body) > _MAXIMUM_HEADER:
        raise ValueError("The header of the envelope would be larger than 1 MiB; use shorter database queries.")
    return MAGIC + _LENGTH.pack(len(body)) + body


def _header_size(start: bytes) -> int:
    """The length of magic, length and header together."""
    if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
        raise ValueError("This is not an envelope of skerry's native format.")
    (length,) = _LENGTH.unpack_from(start, len(MAGIC))
    if length > _MAXIMUM_HEADER:
        raise ValueError("The header of the envelope is larger than 1 MiB.")
    return len(MAGIC) + _LENGTH.size + int(length)


def _decode_header(head: bytes) -> Header:
    try:
        value = json.loads(head[len(MAGIC) + _LENGTH.size :])
    except (ValueError, RecursionError) as error:
        raise ValueError("The header of the envelope is not JSON.") from error
    wanted = {"v", "context", "certificate", "chain", "chunk_size", "nonce_prefix", "keys"}
    if not isinstance(value, dict) or set(value) != wanted or value["v"] != 1:
        raise ValueError("The envelope is of a version that this skerry does not know.")
    size, prefix, chain = value["chunk_size"], unb64(str(value["nonce_prefix"])), value["chain"]
    if type(size) is not int or not 0 < size <= _MAXIMUM_CHUNK or len(prefix) != _PREFIX_BYTES:
        raise ValueError("The header of the envelope has an impossible chunk size or nonce.")
    if not isinstance(chain, list) or len(chain) > MAXIMUM_CHAIN:
        raise ValueError(f"The chain of the envelope is not a list of at most {MAXIMUM_CHAIN} links.")
    certificate = None if value["certificate"] is None else Certificate.parse(value["certificate"])
    links = tuple(Proof.parse(link) for link in chain)
    return Header(Context.parse(value["context"]), certificate, links, size, prefix, _parse_keys(value["keys"]), head)


def _parse_keys(value: Any) -> tuple[tuple[str, bytes], ...]:
    try:
        return tuple((str(entry["recipient"]), unb64(entry["wrapped"])) for entry in value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("The list of wrapped keys in the envelope is malformed.") from error


def _rechunk(pieces: Iterable[bytes]) -> Iterator[tuple[memoryview, bool]]:
    """The same bytes in pieces of CHUNK_SIZE, each with whether it is the last; at least one."""
    reader = _Reader(iter(pieces))
    while (waiting := reader.fill(CHUNK_SIZE + 1)) > CHUNK_SIZE:
        yield reader.take(CHUNK_SIZE), False
    yield reader.take(waiting), True


class _Reader:
    """Takes exact numbers of bytes from a stream of pieces; raises DecryptionError at a premature end.

    What lies in one piece is not copied; small pieces are put together, or each would cost as much again as it holds.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._waiting: deque[memoryview] = deque()
        self._small = bytearray()
        self._size = 0

    def fill(self, size: int) -> int:
        """Reads until at least ``size`` bytes are waiting or the stream ends; how many wait."""
        while self._size < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._size += len(piece)
            if len(piece) < _SMALL:
                self._small += piece
            if len(piece) >= _SMALL or len(self._small) >= _SMALL:
                self._put_together()
            if len(piece) >= _SMALL:
                self._waiting.append(memoryview(piece))
        return self._size

    def peek(self, size: int) -> bytes:
        """At most so many."""
        start = self.take(min(self.fill(size), size))
        self._give_back(start)
        return bytes(start)

    def take_field(self) -> bytes:
        """What comes before the next dollar, which is taken, too. Raises DecryptionError where none is near."""
        while (end := self.peek(self._size).find(b"$")) < 0:
            have = self._size
            if have > _LONGEST_FIELD or self.fill(have + 1) == have:
                raise DecryptionError(_UNREADABLE)
        return bytes(self.take(end + 1)[:-1])

    def rest(self) -> Iterator[bytes]:
        """All that is left."""
        yield bytes(self.take(self._size))
        yield from self._pieces

    def take(self, size: int) -> memoryview:
        if self.fill(size) < size:
            raise DecryptionError(_UNREADABLE)
        taken = self._next(size)
        if len(taken) < size:
            parts, missing = [taken], size - len(taken)
            while missing:
                parts.append(self._next(missing))
                missing -= len(parts[-1])
            taken = memoryview(b"".join(parts))
        return taken

    def _put_together(self) -> None:
        if self._small:
            self._waiting.append(memoryview(bytes(self._small)))
            self._small.clear()

    def _give_back(self, piece: memoryview) -> None:
        if piece:
            self._waiting.appendleft(piece)
            self._size += len(piece)

    def _next(self, most: int) -> memoryview:
        """So many bytes, or less where a piece ends."""
        if not self._waiting:
            self._put_together()
        piece = self._waiting.popleft() if self._waiting else memoryview(b"")
        self._size -= len(piece)
        self._give_back(piece[most:])
        return piece[:most]


def _decrypt(reader: _Reader, cipher: AESGCM, opened: Opened) -> Iterator[bytes]:
    header = opened.header
    aad, body = hashlib.sha256(header.head).digest(), hashlib.sha256()
    record = header.chunk_size + _TAG_BYTES
    index, last = 0, False
    while not last:
        waiting = reader.fill(record + _SIGNATURE_BYTES + 1)
        last = waiting <= record + _SIGNATURE_BYTES
        sealed = reader.take(max(waiting - _SIGNATURE_BYTES, _TAG_BYTES) if last else record)
        body.update(sealed)
        try:
            chunk = cipher.decrypt(_nonce(header.nonce_prefix, index, last=last), sealed, aad)
        except (InvalidTag, struct.error) as error:
            raise DecryptionError(_UNREADABLE) from error
        index += 1
        yield chunk
    opened._proof = Proof(header.head, body.digest(), bytes(reader.take(_SIGNATURE_BYTES)))  # noqa: SLF001 - its maker


# --- vantage6's format, inside ---------------------------------------------------------------------------


def _start_vantage6(public_key_pem: bytes) -> tuple[str, CipherContext]:
    """The two fields before the ciphertext, and what makes that."""
    key, iv = os.urandom(_KEY_BYTES), os.urandom(_IV_BYTES)
    wrapped = load_encryption_key(public_key_pem).encrypt(key, padding.PKCS1v15())
    return f"{b64(wrapped)}${b64(iv)}$", Cipher(AES(key), CTR(iv)).encryptor()


def _unwrap_vantage6(wrapped: bytes, identity: Identity) -> bytes:
    """The AES key, or a random one where there is none: a caller can't tell the two apart."""
    try:
        key = identity.encryption.decrypt(wrapped, padding.PKCS1v15())
    except ValueError:
        return os.urandom(_KEY_BYTES)
    if len(key) != _KEY_BYTES:
        try:
            key = unb64(key.decode("ascii"))
        except ValueError:
            return os.urandom(_KEY_BYTES)
    return key if len(key) == _KEY_BYTES else os.urandom(_KEY_BYTES)


def _undo_double_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Small plaintexts are looked at as a whole; of large ones the beginning says what they are."""
    reader = _Reader(iter(pieces))
    if reader.fill(_LOOKED_AT + 1) <= _LOOKED_AT:
        yield _without_base64(reader.peek(_LOOKED_AT))
        return
    start = reader.peek(_LOOKED_AT)
    wrapped = start[:1] not in _JSON_STARTS and _starts_json_in_base64(start)
    yield from unb64_pieces(reader.rest()) if wrapped else reader.rest()


def _starts_json_in_base64(start: bytes) -> bool:
    try:
        return unb64(start.decode("ascii"))[:1] in _JSON_STARTS
    except ValueError:
        return False


def _without_base64(plaintext: bytes) -> bytes:
    if _is_json(plaintext):
        return plaintext
    try:
        inner = unb64(plaintext.decode("ascii"))
    except ValueError:
        return plaintext
    return inner if _is_json(inner) else plaintext


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True
