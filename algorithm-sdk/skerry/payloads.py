"""How a client's inputs go out and its results come back: in the clear, in the native format, or in vantage6's.

What the server says is not believed further than it must be: a client that has set up encryption sends nothing in
the clear, encrypts for keys that it has pinned, and reads only results that the organization of the run signed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skerry import crypto, trust
from skerry.errors import ConfigurationError, ContextError, DecryptionError, KeyChanged, MissingKey
from skerry.keys import Identity, OrganizationKeys
from skerry.pins import Pins
from skerry.statements import Announced
from skerry.wire import MAGIC, Context, Format, b64, from_stored

LIFETIME = 14 * 24 * 3600
"""Seconds for which a node may still start a task after it was created."""

KeysIn = Callable[[int], list[dict[str, Any]]]
"""What the server says are the keys of a collaboration's organizations, in their wire form."""


@dataclass(frozen=True, slots=True)
class Collaboration:
    """What a collaboration demands of payloads."""

    id: int
    encrypted: bool
    accept: str

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Collaboration:
        return cls(int(answer["id"]), bool(answer["encrypted"]), str(answer.get("accept") or Format.VANTAGE6))


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a payload is bound to, apart from its sender and recipient.

    ``format``: that of the task's input, where it is known better than by the server's word; its answers have it too.
    """

    uuid: str
    collaboration: Collaboration
    image: str
    databases: tuple[dict[str, Any], ...] = ()
    format: Format | None = None

    @property
    def may_be_vantage6(self) -> bool:
        if self.format is not None:
            return self.format is Format.VANTAGE6
        return self.collaboration.encrypted and self.collaboration.accept != Format.NATIVE


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose payloads these are."""

    organization_id: int
    user_id: int


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of this client's organization, and those of others as this client has pinned them."""

    identity: Identity
    pins: Pins

    @classmethod
    def open(cls, key_file: Path, *, require_confirmed: bool = False) -> Keyring:
        """Raises KeyFileError, or ConfigurationError when the pins beside the key file can't be read."""
        identity = Identity.load(key_file)
        pins = key_file.with_name(f"{key_file.name}.pins.json")
        return cls(identity, Pins(pins, require_confirmed=require_confirmed))

    def check_own(self, keys: OrganizationKeys) -> None:
        """For what the server says are the keys of this client's organization; raises KeyChanged for others."""
        identity = self.identity
        if identity.certificate is None:
            own = OrganizationKeys.from_wire(identity.organization_keys(keys.organization_id))
            known = own == keys if identity.signing is not None else own.encryption == keys.encryption
        else:
            known = keys.encryption == identity.public_pem
        if not known:
            raise KeyChanged(
                f"The server shows other keys for your own organization {keys.organization_id} than those in your key "
                "file. Ask its administrator whether they were changed."
            )

    def check_certified(self, organization_id: int, registered_key: str, file: str) -> None:
        """For a user's own file; raises KeyChanged unless it was made from the organization's present keys."""
        certificate = self.identity.certificate
        of_other = certificate is not None and certificate.organization != organization_id
        if of_other or registered_key != b64(self.identity.public_pem):
            raise KeyChanged(
                f"{file} was not made from your organization's present keys: ask for a new one, made with "
                "`skerry key certify`."
            )


@dataclass(slots=True)
class Payloads:
    """The payloads of one user. ``keyring`` None: nothing is encrypted, and nothing encrypted can be read."""

    owner: Owner
    keys_in: KeysIn
    keyring: Keyring | None = None
    _keys: dict[int, OrganizationKeys] = field(default_factory=dict)

    def format_for(self, collaboration: Collaboration) -> Format:
        """The best that the collaboration and the key file allow; raises ConfigurationError, with the remedy."""
        if self.keyring is None:
            if collaboration.encrypted:
                raise ConfigurationError(
                    f"Collaboration {collaboration.id} is encrypted: call setup_encryption with your organization's "
                    "private key file first."
                )
            return Format.PLAIN
        if not collaboration.encrypted:
            raise ConfigurationError(
                f"The server says that collaboration {collaboration.id} is not encrypted, and you have set up "
                "encryption; to send your input in the clear, call setup_encryption(None)."
            )
        signs = self.keyring.identity.signing is not None
        if collaboration.accept == Format.VANTAGE6 or (collaboration.accept == "both" and not signs):
            return Format.VANTAGE6
        return Format.NATIVE

    def seal_input(self, raw: bytes, task: TaskFacts, recipients: Sequence[int]) -> dict[int, str]:
        """The input as it travels, for each organization. Raises MissingKey, KeyChanged, KeyNotConfirmed, …"""
        fmt = self.format_for(task.collaboration)
        self._learn(task.collaboration.id, recipients)
        return {
            recipient: from_stored(b"".join(self._seal([raw], task, recipient, fmt)), fmt) for recipient in recipients
        }

    def seal_stream(self, pieces: Iterable[bytes], task: TaskFacts, recipient: int) -> Iterator[bytes]:
        """The input as it is stored, piece by piece, in constant memory. Raises as ``seal_input`` does."""
        self._learn(task.collaboration.id, [recipient])
        return self._seal(pieces, task, recipient, self.format_for(task.collaboration))

    def open(self, stored: bytes, direction: str, task: TaskFacts, sender: int) -> bytes:
        """The plaintext of a result or a log of an organization's run.

        Raises DecryptionError, SignatureError or ContextError when it was altered, is for someone else, or is not
        what that organization made for this task.
        """
        return b"".join(self.open_stream([stored], direction, task, sender))

    def open_stream(
        self, stored: Iterable[bytes], direction: str, task: TaskFacts, sender: int | None
    ) -> Iterator[bytes]:
        """The same, piece by piece, in constant memory: to be believed only when it has ended without raising."""
        start, pieces = _peek(stored, len(MAGIC))
        if self.keyring is None:
            yield from self._open_plain(pieces, task)
        elif start == MAGIC:
            yield from self._open_native(self.keyring, pieces, direction, task, sender)
        elif direction == "input" or task.may_be_vantage6:
            yield from crypto.vantage6_unseal(pieces, self.keyring.identity)
        else:
            raise DecryptionError(f"The {direction} of organization {sender} is not encrypted as it should be.")

    def open_input(self, stored: bytes, task: TaskFacts) -> bytes:
        """The plaintext of an input that was made for this client's organization. Raises as ``open`` does."""
        return b"".join(self.open_stream([stored], "input", task, None))

    def _open_plain(self, stored: Iterable[bytes], task: TaskFacts) -> Iterable[bytes]:
        if task.collaboration.encrypted:
            self.format_for(task.collaboration)
        return stored

    def _open_native(
        self, keyring: Keyring, stored: Iterable[bytes], direction: str, task: TaskFacts, sender: int | None
    ) -> Iterator[bytes]:
        """``sender`` None: any organization, as an input may come from."""
        which = f"The {direction}" + ("" if sender is None else f" of organization {sender}")
        try:
            opened = crypto.unseal(stored, keyring.identity)
        except ValueError as error:
            raise DecryptionError(f"{which} was altered: {error}") from error
        yield from opened.chunks
        context = opened.header.context
        if context.attempt is None and direction != "input":
            raise ContextError(f"{which} does not say which attempt made it.")
        expected = trust.Expected(
            direction=direction,
            task=task.uuid,
            collaboration=task.collaboration.id,
            recipient=self.owner.organization_id,
            image=task.image,
            databases=context.databases,
            attempt=context.attempt,
            sender=sender,
        )
        trust.verify(opened.header, opened.proof, expected, self._keys_of(task.collaboration.id), time.time())

    def _keys_of(self, collaboration_id: int) -> trust.KeysOf:
        def keys_of(organization_id: int) -> OrganizationKeys:
            self._learn(collaboration_id, [organization_id])
            return self._keys[organization_id]

        return keys_of

    def _learn(self, collaboration_id: int, organizations: Iterable[int]) -> None:
        """Pins the keys of these organizations, where that has not been done since the client started."""
        wanted = set(organizations) - self._keys.keys()
        if self.keyring is None or not wanted:
            return
        shown = {int(keys["organization_id"]): keys for keys in self.keys_in(collaboration_id) if keys["public_key"]}
        if missing := sorted(wanted - shown.keys()):
            raise MissingKey(f"No key is registered for organization {', '.join(map(str, missing))}.")
        for organization in sorted(wanted):
            announced = Announced.from_wire(shown[organization])
            if organization == self.owner.organization_id:
                self.keyring.check_own(announced.keys)
            self._keys[organization] = self.keyring.pins.trust(announced)

    def _seal(self, pieces: Iterable[bytes], task: TaskFacts, recipient: int, fmt: Format) -> Iterator[bytes]:
        if self.keyring is None or fmt is Format.PLAIN:
            return iter(pieces)
        key = self._keys[recipient].encryption
        if fmt is Format.VANTAGE6:
            return crypto.vantage6_seal(pieces, key)
        return crypto.seal(pieces, self._context(task, recipient), recipients=[key], identity=self.keyring.identity)

    def _context(self, task: TaskFacts, recipient: int) -> Context:
        now = int(time.time())
        return Context(
            direction="input",
            task=task.uuid,
            parent=None,
            collaboration=task.collaboration.id,
            sender=self.owner.organization_id,
            user=self.owner.user_id,
            recipient=recipient,
            image=task.image,
            databases=task.databases,
            attempt=None,
            created=now,
            expires=now + LIFETIME,
        )


def _peek(pieces: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes of a stream, and all of it."""
    rest, start = iter(pieces), b""
    while len(start) < size and (piece := next(rest, None)) is not None:
        start += piece
    return start[:size], itertools.chain([start], rest)
