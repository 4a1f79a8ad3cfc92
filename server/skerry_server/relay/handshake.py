"""The answering side of WireGuard's handshake, so that a run's own WireGuard can say who and where it is.

Noise_IKpsk2 as in the WireGuard paper (Donenfeld, NDSS 2017), section 5.4. Nothing is ever sent in such a session but
the answer: its keepalives tell that the run is there, and keep its NAT's way open.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
INITIATION, RESPONSE, COOKIE, TRANSPORT = 1, 2, 3, 4
INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES, KEEPALIVE_BYTES = 148, 92, 64, 32

_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_LABEL = b"mac1----"
_MAC_BYTES = 16
_INITIATION = struct.Struct("<4sI32s48s28s16s16s")
_RESPONSE = struct.Struct("<4sII32s16s")
_TRANSPORT = struct.Struct("<4sIQ")


class NotForUs(Exception):
    """A packet that is not what its sender could have made."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whose public key a handshake is meant for can be seen by anybody who knows that key (the paper's mac1)."""

    public_key: bytes
    mac_key: bytes

    @classmethod
    def of(cls, public_key: bytes) -> Addressee:
        return cls(public_key, _hash(_LABEL, public_key))

    def is_named_by(self, initiation: bytes) -> bool:
        covered = initiation[: -2 * _MAC_BYTES]
        shown = initiation[-2 * _MAC_BYTES : -_MAC_BYTES]
        return hmac.compare_digest(self.seal(covered), shown)

    def seal(self, covered: bytes) -> bytes:
        return hashlib.blake2s(covered, key=self.mac_key, digest_size=_MAC_BYTES).digest()


@dataclass(slots=True)
class Session:
    """What a caller sends after its handshake; ``public_key`` is its own, which its first packet proves."""

    public_key: bytes
    receiving: bytes
    last: int = -1

    def hear(self, packet: bytes) -> None:
        """Raises NotForUs unless the caller sent just this, after all that was heard before."""
        if len(packet) != KEEPALIVE_BYTES:
            raise NotForUs
        _, _, counter = _TRANSPORT.unpack_from(packet)
        if counter <= self.last:
            raise NotForUs
        _open(self.receiving, counter, packet[_TRANSPORT.size :], b"")
        self.last = counter


class Responder:
    """The relay's key pair, and the secret that it shares with the nodes that may be reached through it."""

    def __init__(self, private: X25519PrivateKey, secret: bytes) -> None:
        self._private = private
        self._secret = secret
        self.me = Addressee.of(private.public_key().public_bytes_raw())

    def answer(self, initiation: bytes, index: int) -> tuple[bytes, Session]:
        """The response, and the session that it opens, where the caller knows the secret. Raises NotForUs."""
        _, sender, ephemeral, sealed_key, sealed_time, _, _ = _INITIATION.unpack(initiation)
        chain = _hash(_CONSTRUCTION)
        seen = _hash(_hash(_hash(chain, _IDENTIFIER), self.me.public_key), ephemeral)
        (chain,) = _derive(chain, ephemeral, 1)
        chain, key = _derive(chain, _agree(self._private, ephemeral), 2)
        caller = _open(key, 0, sealed_key, seen)
        seen = _hash(seen, sealed_key)
        chain, key = _derive(chain, _agree(self._private, caller), 2)
        _open(key, 0, sealed_time, seen)
        return self._respond(chain, _hash(seen, sealed_time), (sender, index), (ephemeral, caller))

    def _respond(
        self, chain: bytes, seen: bytes, indices: tuple[int, int], keys: tuple[bytes, bytes]
    ) -> tuple[bytes, Session]:
        (their_index, our_index), (ephemeral, caller) = indices, keys
        own = X25519PrivateKey.generate()
        shown = own.public_key().public_bytes_raw()
        for piece in (shown, _agree(own, ephemeral), _agree(own, caller)):
            (chain,) = _derive(chain, piece, 1)
        chain, mixed, key = _derive(chain, self._secret, 3)
        seen = _hash(_hash(seen, shown), mixed)
        empty = ChaCha20Poly1305(key).encrypt(_nonce(0), b"", seen)
        covered = _RESPONSE.pack(_kind(RESPONSE), our_index, their_index, shown, empty)
        receiving, _ = _derive(chain, b"", 2)
        return covered + Addressee.of(caller).seal(covered) + bytes(_MAC_BYTES), Session(caller, receiving)


def _kind(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def _hash(*pieces: bytes) -> bytes:
    return hashlib.blake2s(b"".join(pieces)).digest()


def _derive(chain: bytes, material: bytes, count: int) -> tuple[bytes, ...]:
    """The paper's KDF, which is HKDF with BLAKE2s."""
    secret = _authenticate(chain, material)
    made = [b""]
    for number in range(1, count + 1):
        made.append(_authenticate(secret, made[-1] + bytes([number])))
    return tuple(made[1:])


def _authenticate(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.blake2s).digest()


def _agree(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # a point of small order
        raise NotForUs from error


def _open(key: bytes, counter: int, sealed: bytes, seen: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(counter), sealed, seen)
    except InvalidTag as error:
        raise NotForUs from error


def _nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")
