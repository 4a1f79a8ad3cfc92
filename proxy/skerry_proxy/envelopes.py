"""Opening and sealing a run's payloads in the format that its input had. One class for each format.

All three keep the same promises (``Protection``); what they can't promise is in their docstrings.
"""

# ruff: noqa: ARG002 - the three classes have one shape, and not each format needs all of it
from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from skerry import crypto
from skerry.errors import ContextError, CryptoError, KeyChanged, SignatureError
from skerry.keys import Identity, OrganizationKeys
from skerry.trust import LONGEST_LIFE, Expected, Sender, parse_link, verify
from skerry.wire import Context, Format, b64, unb64
from skerry_proxy.keyring import Keyring
from skerry_proxy.ledger import Child, Ledger
from skerry_proxy.orders import Order
from skerry_proxy.runs import Run

CHILD_LIFE = 7 * 24 * 3600
"""Seconds for which a child's input may be opened."""

_LARGEST_LOG = 8 * 1024 * 1024
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opened:
    """Who asked, and the run that came of it."""

    sender: Sender
    run: Run


@dataclass(frozen=True, slots=True)
class Part:
    """One organization's part in a child task; ``token`` is an upstream token, to ask for that one's keys."""

    child: Child
    organization: int
    token: str


class Destination(Protocol):
    def write(self, piece: bytes, /) -> int: ...


class Protection(Protocol):
    """What can be done with the payloads of one format."""

    def open_input(self, order: Order, stored: Iterable[bytes], destination: Destination) -> Opened:
        """Writes the plaintext; it may be used only when this has returned. Raises CryptoError or ValueError."""

    def seal_result(self, run: Run, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        """The stored form of a result, piece by piece."""

    def seal_log(self, run: Run, log: str) -> str:
        """The log as it travels in JSON."""

    def seal_child(self, run: Run, part: Part, plaintext: bytes) -> str:
        """The input of a child task for one organization, as it travels in JSON."""

    def seal_blob(self, run: Run, part: Part, plaintext: Iterable[bytes], key: bytes | None) -> Iterator[bytes]:
        """The same as it is stored, in pieces. Raises KeyChanged unless ``key`` is the organization's pinned one."""

    def open_result(self, run: Run, part: Part, stored: Iterable[bytes]) -> Iterator[bytes]:
        """The plaintext, to be believed only when it has ended. Raises CryptoError or ValueError."""

    def open_log(self, run: Run, part: Part, log: str) -> str:
        """The text of a child's log. Raises CryptoError or ValueError."""


class NativeProtection:
    """skerry's own format: signed, bound to its context, opened for one run and attempt only."""

    def __init__(
        self, identity: Identity, keyring: Keyring, ledger: Ledger, clock: Callable[[], float] = time.time
    ) -> None:
        self._identity = identity
        self._keyring = keyring
        self._ledger = ledger
        self._clock = clock

    def open_input(self, order: Order, stored: Iterable[bytes], destination: Destination) -> Opened:
        self._keyring.refresh(order.keys_version, order.token)
        envelope = crypto.unseal(stored, self._identity)
        for chunk in envelope.chunks:
            destination.write(chunk)
        expected = Expected("input", order.uuid, order.collaboration, order.organization, order.image, order.databases)
        sender = self._verify(envelope, expected, order.token)
        context, now = envelope.header.context, self._clock()
        self._ledger.use(context.sender, context.task, (order.run, order.attempt), context.expires, now)
        asker = self._keyring.find(sender.organization, order.token)
        lineage = (*envelope.header.chain, envelope.proof)
        return Opened(sender, make_run(order, sender.organization, asker.encryption, lineage, now))

    def seal_result(self, run: Run, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        context = self._answer_context("result", run)
        return crypto.seal(plaintext, context, recipients=[run.asker_key], identity=self._identity)

    def seal_log(self, run: Run, log: str) -> str:
        context = self._answer_context("log", run)
        pieces = crypto.seal([log.encode()], context, recipients=[run.asker_key], identity=self._identity)
        return b64(b"".join(pieces))

    def seal_child(self, run: Run, part: Part, plaintext: bytes) -> str:
        return b64(b"".join(self._seal_child(run, part, [plaintext])))

    def seal_blob(self, run: Run, part: Part, plaintext: Iterable[bytes], key: bytes | None) -> Iterator[bytes]:
        _check_key(self._keyring, part, key)
        return self._seal_child(run, part, plaintext)

    def _seal_child(self, run: Run, part: Part, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        if len(run.lineage) > crypto.MAXIMUM_CHAIN:
            raise ContextError(f"Child tasks can't be nested deeper than {crypto.MAXIMUM_CHAIN} levels.")
        now = int(self._clock())
        context = Context(
            direction="input",
            task=part.child.uuid,
            parent=run.uuid,
            collaboration=run.collaboration,
            sender=run.organization,
            user=None,
            recipient=part.organization,
            image=run.image,
            databases=part.child.databases,
            attempt=None,
            created=now,
            expires=now + CHILD_LIFE,
        )
        key = self._keyring.find(part.organization, part.token).encryption
        return crypto.seal(plaintext, context, recipients=[key], identity=self._identity, chain=run.lineage)

    def open_result(self, run: Run, part: Part, stored: Iterable[bytes]) -> Iterator[bytes]:
        return self._open_answer("result", run, part, stored)

    def open_log(self, run: Run, part: Part, log: str) -> str:
        pieces = self._open_answer("log", run, part, [unb64(log)])
        return _join(pieces, _LARGEST_LOG).decode("utf-8", "replace")

    def _open_answer(self, direction: str, run: Run, part: Part, stored: Iterable[bytes]) -> Iterator[bytes]:
        envelope = crypto.unseal(stored, self._identity)
        yield from envelope.chunks
        attempt = envelope.header.context.attempt
        if attempt is None:
            raise ContextError("The result or log names no attempt.")
        expected = Expected(
            direction,
            part.child.uuid,
            run.collaboration,
            run.organization,
            run.image,
            part.child.databases,
            attempt=attempt,
            sender=part.organization,
        )
        self._verify(envelope, expected, part.token)

    def _verify(self, envelope: crypto.Opened, expected: Expected, token: str) -> Sender:
        def keys_of(organization: int) -> OrganizationKeys:
            return self._keyring.find(organization, token)

        try:
            return verify(envelope.header, envelope.proof, expected, keys_of, self._clock())
        except SignatureError:
            # The author's keys may have changed since they were pinned: a successor is followed, or the owner told.
            for context in (envelope.header.context, *(parse_link(link).context for link in envelope.header.chain)):
                self._keyring.check(context.sender, token)
        return verify(envelope.header, envelope.proof, expected, keys_of, self._clock())

    def _answer_context(self, direction: str, run: Run) -> Context:
        now = int(self._clock())
        return Context(
            direction=direction,
            task=run.uuid,
            parent=None,
            collaboration=run.collaboration,
            sender=run.organization,
            user=None,
            recipient=run.asker,
            image=run.image,
            databases=run.databases,
            attempt=run.attempt,
            created=now,
            expires=now + LONGEST_LIFE,
        )


class Vantage6Protection:
    """vantage6 4.x's format: encrypted, but neither authenticated nor signed."""

    def __init__(self, identity: Identity, keyring: Keyring, clock: Callable[[], float] = time.time) -> None:
        self._identity = identity
        self._keyring = keyring
        self._clock = clock

    def open_input(self, order: Order, stored: Iterable[bytes], destination: Destination) -> Opened:
        for piece in crypto.vantage6_unseal(stored, self._identity):
            destination.write(piece)
        asker = self._keyring.find(order.init_organization, order.token)
        run = make_run(order, order.init_organization, asker.encryption, (), self._clock())
        return Opened(claimed_sender(order), run)

    def seal_result(self, run: Run, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        return crypto.vantage6_seal(plaintext, run.asker_key)

    def seal_log(self, run: Run, log: str) -> str:
        """In the clear: its clients expect text."""
        return log

    def seal_child(self, run: Run, part: Part, plaintext: bytes) -> str:
        return crypto.vantage6_encrypt(plaintext, self._keyring.find(part.organization, part.token).encryption)

    def seal_blob(self, run: Run, part: Part, plaintext: Iterable[bytes], key: bytes | None) -> Iterator[bytes]:
        return crypto.vantage6_seal(plaintext, _check_key(self._keyring, part, key))

    def open_result(self, run: Run, part: Part, stored: Iterable[bytes]) -> Iterator[bytes]:
        return crypto.vantage6_unseal(stored, self._identity)

    def open_log(self, run: Run, part: Part, log: str) -> str:
        return log


class PlainProtection:
    """No protection at all: for collaborations that chose to have none."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def open_input(self, order: Order, stored: Iterable[bytes], destination: Destination) -> Opened:
        for piece in stored:
            destination.write(piece)
        return Opened(claimed_sender(order), make_run(order, order.init_organization, b"", (), self._clock()))

    def seal_result(self, run: Run, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        yield from plaintext

    def seal_log(self, run: Run, log: str) -> str:
        return log

    def seal_child(self, run: Run, part: Part, plaintext: bytes) -> str:
        return b64(plaintext)

    def seal_blob(self, run: Run, part: Part, plaintext: Iterable[bytes], key: bytes | None) -> Iterator[bytes]:
        yield from plaintext

    def open_result(self, run: Run, part: Part, stored: Iterable[bytes]) -> Iterator[bytes]:
        yield from stored

    def open_log(self, run: Run, part: Part, log: str) -> str:
        return log


def _check_key(keyring: Keyring, part: Part, key: bytes | None) -> bytes:
    """The organization's pinned key, when it is the one that is shown."""
    pinned = keyring.find(part.organization, part.token).encryption
    if key != pinned:
        raise KeyChanged(
            f"The input for organization {part.organization} was sent for another key than this node has pinned for it."
        )
    return pinned


class Envelopes:
    """The protections that this proxy's settings admit; any other format is refused."""

    def __init__(self, protections: dict[Format, Protection]) -> None:
        self._protections = protections

    def of(self, fmt: Format) -> Protection:
        """Raises SignatureError for a format that is not admitted."""
        protection = self._protections.get(fmt)
        if protection is None:
            raise SignatureError(_REFUSED[fmt])
        return protection


_REFUSED = {
    Format.NATIVE: "This node's collaboration does not accept skerry's native format.",
    Format.VANTAGE6: "This node does not accept unsigned tasks in vantage6's format (unsigned_tasks, accept).",
    Format.PLAIN: (
        "This node does not accept unencrypted tasks: the collaboration is encrypted, or unsigned_tasks is refuse."
    ),
}


def claimed_sender(order: Order) -> Sender:
    """Who asked, as the server says."""
    organization = order.init_organization
    return Sender(organization, order.init_user, organization, signed=False)


def make_run(order: Order, asker: int, asker_key: bytes, lineage: tuple[crypto.Proof, ...], now: float) -> Run:
    return Run(
        id=order.run,
        attempt=order.attempt,
        organization=order.organization,
        node=order.node,
        task=order.task,
        uuid=order.uuid,
        collaboration=order.collaboration,
        study=order.study,
        store=order.store,
        image=order.image,
        databases=order.databases,
        format=order.format,
        asker=asker,
        asker_key=asker_key,
        lineage=lineage,
        secret=os.urandom(_SECRET_BYTES),
        opened=int(now),
    )


def _join(pieces: Iterable[bytes], largest: int) -> bytes:
    """All of it; raises CryptoError when it is more than fits."""
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > largest:
            raise CryptoError(f"The payload is larger than {largest} bytes, more than its format can carry here.")
    return bytes(whole)
