"""Keys of organizations and users: what they are, how they lie in a file, how they are shown to others.

Formats: ``docs/reference/native-protocol.md``, section 3.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from skerry.errors import CryptoError, KeyFileError, MissingKey, SignatureError
from skerry.wire import b64, canonical, unb64

RSA_BITS = 4096
_MINIMUM_RSA_BITS = 2048
_SIGNING_KEY_BYTES = 32
_CERTIFICATE_DAYS = 365
_BINDING = b"skerry keys v1\0"
_CERTIFICATE = b"skerry certificate v1\0"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----\s*", re.DOTALL)


def verify_signature(signing_key: bytes, signature: bytes, message: bytes) -> None:
    """Ed25519; raises SignatureError."""
    try:
        Ed25519PublicKey.from_public_bytes(signing_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("A signature does not hold.") from error


def load_encryption_key(pem: bytes) -> RSAPublicKey:
    """An organization's public encryption key; raises CryptoError unless it is RSA of at least 2048 bits."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise CryptoError("A public encryption key is not a PEM public key.") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < _MINIMUM_RSA_BITS:
        raise CryptoError(f"A public encryption key must be RSA with {_MINIMUM_RSA_BITS} bits or more.")
    return key


def encryption_fingerprint(key: RSAPublicKey) -> str:
    """SHA-256 over the DER SubjectPublicKeyInfo, as hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A signing key that its organization has replaced: believed for what is dated no later than ``until``."""

    signing: bytes
    until: int


@dataclass(frozen=True, slots=True)
class OrganizationKeys:
    """The public keys of an organization: ``encryption`` as PEM, ``signing`` as 32 raw bytes, or None.

    ``retired`` and ``revoked`` (user, until when) are what the organization has said of keys that no longer count;
    they make no other keys of these.
    """

    organization_id: int
    encryption: bytes
    signing: bytes | None
    retired: tuple[RetiredKey, ...] = field(default=(), compare=False)
    revoked: tuple[tuple[int, int], ...] = field(default=(), compare=False)

    @classmethod
    def from_wire(cls, value: dict[str, Any]) -> OrganizationKeys:
        """Raises CryptoError when the keys are malformed or the signing key did not sign the encryption key."""
        try:
            organization_id = int(value["organization_id"])
            encryption, signing = unb64(value["public_key"]), unb64(value.get("signing_key") or "")
            binding = unb64(value.get("binding") or "")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CryptoError("The keys of an organization are not in the form that they should have.") from error
        load_encryption_key(encryption)
        if not signing:
            return cls(organization_id, encryption, None)
        if len(signing) != _SIGNING_KEY_BYTES:
            raise CryptoError(f"The signing key of organization {organization_id} is not an Ed25519 key.")
        verify_signature(signing, binding, _binding_message(encryption))
        return cls(organization_id, encryption, signing)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both keys, as hex: what two people compare by telephone."""
        return hashlib.sha256(self.encryption + (self.signing or b"")).hexdigest()

    def require_signing(self) -> bytes:
        """The signing key; raises MissingKey when the organization has none."""
        if self.signing is None:
            raise MissingKey(
                f"Organization {self.organization_id} has no signing key, so nothing that it sends can be checked: "
                "its owner makes one with `skerry key new` and registers it."
            )
        return self.signing

    def signing_keys(self, at: float) -> tuple[bytes, ...]:
        """The keys that count for what is dated then, the present one first. Raises MissingKey."""
        return self.require_signing(), *(key.signing for key in self.retired if at <= key.until)

    def revokes(self, certificate: Certificate) -> bool:
        """Whether the organization has taken its word for that user's key back."""
        return any(user == certificate.user and certificate.created <= before for user, before in self.revoked)


@dataclass(frozen=True, slots=True)
class Certificate:
    """An organization's word that a signing key is its user's. Times are Unix seconds."""

    organization: int
    user: int
    signing_key: str
    created: int
    expires: int
    signature: str

    @classmethod
    def issue(cls, issuer: Ed25519PrivateKey, organization: int, user: int, signing_key: bytes) -> Certificate:
        now = int(time.time())
        draft = cls(organization, user, b64(signing_key), now, now + _CERTIFICATE_DAYS * 86400, "")
        return replace(draft, signature=b64(issuer.sign(draft.signed_message())))

    def signed_message(self) -> bytes:
        """What the signature covers: all other fields."""
        return _CERTIFICATE + canonical({name: part for name, part in asdict(self).items() if name != "signature"})

    @classmethod
    def parse(cls, value: Any) -> Certificate:
        """Raises ValueError for anything that is not exactly a certificate."""
        wanted = {name: str if name in {"signing_key", "signature"} else int for name in cls.__slots__}
        if not isinstance(value, dict) or {name: type(part) for name, part in value.items()} != wanted:
            raise ValueError("The certificate of the envelope is malformed.")
        return cls(**value)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def verify(self, issuer: bytes, at: float) -> bytes:
        """The certified signing key; raises SignatureError when the issuer did not sign it or it is not valid then."""
        try:
            signature, key = unb64(self.signature), unb64(self.signing_key)
        except ValueError as error:
            raise SignatureError("A certificate is malformed.") from error
        verify_signature(issuer, signature, self.signed_message())
        if not self.created - 300 <= at <= self.expires:
            raise SignatureError(
                f"The certificate of user {self.user} is not valid now: their organization issues a new one "
                "with `skerry key certify`."
            )
        return key


@dataclass(frozen=True, slots=True)
class PreviousKey:
    """An encryption key that was replaced, kept to read what is still on its way; beside it, what it signed with."""

    encryption: RSAPrivateKey
    retired: RetiredKey

    @classmethod
    def parse(cls, body: bytes) -> PreviousKey:
        """Raises KeyFileError."""
        try:
            value = json.loads(_unwrap(body))
            key = load_der_private_key(unb64(value["encryption"]), password=None)
            retired = RetiredKey(unb64(value["signing"]), int(value["until"]))
        except (ValueError, KeyError, TypeError) as error:
            raise KeyFileError("A previous key in the key file is malformed.") from error
        if not isinstance(key, RSAPrivateKey):
            raise KeyFileError("A previous key in the key file is not an RSA key.")
        return cls(key, retired)

    def dump(self) -> bytes:
        """A block of the key file."""
        der = self.encryption.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        value = {"encryption": b64(der), "signing": b64(self.retired.signing), "until": self.retired.until}
        return _block("SKERRY PREVIOUS KEY", canonical(value))


@dataclass(frozen=True, slots=True)
class Identity:
    """The private keys in one key file. ``signing`` is None in a file that vantage6 made.

    ``previous`` are keys that these have replaced, the newest first: they decrypt, and sign nothing.
    """

    encryption: RSAPrivateKey
    signing: Ed25519PrivateKey | None = None
    certificate: Certificate | None = None
    previous: tuple[PreviousKey, ...] = ()

    @classmethod
    def generate(cls) -> Identity:
        return cls(generate_private_key(public_exponent=65537, key_size=RSA_BITS), Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, pem: bytes) -> Identity:
        """Raises KeyFileError unless the first block is an RSA key and what follows is as documented."""
        encryption: RSAPrivateKey | None = None
        signing: Ed25519PrivateKey | None = None
        certificate: Certificate | None = None
        previous: list[PreviousKey] = []
        for block in _BLOCK.finditer(pem):
            if block[1] == b"SKERRY PREVIOUS KEY":
                previous.append(PreviousKey.parse(block[2]))
                continue
            if block[1] == b"SKERRY CERTIFICATE":
                certificate = _parse_certificate(block[2])
                continue
            key = _load_private(block[0])
            if isinstance(key, RSAPrivateKey) and encryption is None:
                encryption = key
            elif isinstance(key, Ed25519PrivateKey) and signing is None:
                signing = key
            else:
                raise KeyFileError("The key file holds a key of another kind, or one too many.")
        if encryption is None:
            raise KeyFileError("The key file holds no RSA private key. Make one with `skerry key new FILE`.")
        return cls(encryption, signing, certificate, tuple(previous))

    @classmethod
    def load(cls, path: Path | str) -> Identity:
        """Raises KeyFileError when the file is missing, open to others, or not a key file."""
        path = Path(path)
        try:
            mode = path.stat().st_mode
            pem = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"The key file {path} can't be read: {error.strerror}.") from error
        if stat.S_IMODE(mode) & 0o077:
            raise KeyFileError(f"The key file {path} is open to other users of this machine: chmod 600 {path}")
        return cls.parse(pem)

    def dump(self) -> bytes:
        """The file's content: PEM blocks, the RSA key first so that vantage6's clients can read it too."""
        blocks = [self.encryption.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())]
        if self.signing is not None:
            blocks.append(self.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        if self.certificate is not None:
            blocks.append(_block("SKERRY CERTIFICATE", canonical(self.certificate.as_dict())))
        blocks.extend(previous.dump() for previous in self.previous)
        return b"".join(blocks)

    def save(self, path: Path | str) -> None:
        """Writes a new file with mode 0600; raises KeyFileError when there is one already."""
        write_secret(path, self.dump())

    @property
    def public_pem(self) -> bytes:
        return self.encryption.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def decryption_keys(self) -> tuple[RSAPrivateKey, ...]:
        """The present one first."""
        return self.encryption, *(previous.encryption for previous in self.previous)

    def own_keys(self, organization_id: int) -> OrganizationKeys:
        """What the organization of this file knows of its own keys; raises KeyFileError for a user's file."""
        keys = OrganizationKeys.from_wire(self.organization_keys(organization_id))
        return replace(keys, retired=tuple(previous.retired for previous in self.previous))

    def require_signing(self) -> Ed25519PrivateKey:
        """The signing key; raises MissingKey for a file without one."""
        if self.signing is None:
            raise MissingKey("The key file has no signing key: add one with `skerry key new --upgrade FILE`.")
        return self.signing

    def organization_keys(self, organization_id: int) -> dict[str, Any]:
        """The public halves as they travel. Raises KeyFileError for a user's file: its signing key is the user's."""
        if self.certificate is not None:
            raise KeyFileError("This is a user's key file; an organization's keys come from the organization's file.")
        keys: dict[str, Any] = {
            "organization_id": organization_id,
            "public_key": b64(self.public_pem),
            "signing_key": "",
            "binding": "",
        }
        if self.signing is not None:
            keys["signing_key"] = b64(self.signing.public_key().public_bytes_raw())
            keys["binding"] = b64(self.signing.sign(_binding_message(self.public_pem)))
        return keys


def write_secret(path: Path | str, content: bytes) -> None:
    """A new file with mode 0600; raises KeyFileError when there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists already; a key is never overwritten.") from error
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _block(name: str, content: bytes) -> bytes:
    body = b64(content)
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN {name}-----\n{lines}\n-----END {name}-----\n".encode()


def _unwrap(body: bytes) -> bytes:
    """What a block holds; raises ValueError."""
    return unb64("".join(body.decode("ascii").split()))


def _binding_message(encryption: bytes) -> bytes:
    return _BINDING + hashlib.sha256(encryption).digest()


def _load_private(pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError("The key file holds a block that is not an unencrypted PEM private key.") from error


def _parse_certificate(body: bytes) -> Certificate:
    try:
        return Certificate.parse(json.loads(_unwrap(body)))
    except ValueError as error:
        raise KeyFileError("The certificate in the key file is malformed.") from error
