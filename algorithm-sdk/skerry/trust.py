"""Whether an envelope is what it claims to be: rules without I/O; the clock and the keys are passed in.

The rules: ``docs/reference/native-protocol.md``, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skerry.crypto import Header, Proof, parse_header
from skerry.errors import ContextError, SignatureError
from skerry.keys import OrganizationKeys
from skerry.wire import Context, canonical

CLOCK_SKEW = 5 * 60
LONGEST_LIFE = 30 * 24 * 3600

KeysOf = Callable[[int], OrganizationKeys]
"""The pinned keys of an organization; raises MissingKey, KeyChanged or KeyNotConfirmed."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the receiver knows about an envelope before it opens it. ``sender`` None: any organization."""

    direction: str
    task: str
    collaboration: int
    recipient: int
    image: str
    databases: Sequence[dict[str, Any]]
    attempt: int | None = None
    sender: int | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """Who stands behind an envelope.

    ``organization`` signed it; ``user`` is who asked for the job, and ``origin`` that user's organization. Where
    ``signed`` is false all three are only the server's claim.
    """

    organization: int
    user: int | None
    origin: int
    signed: bool


def verify(header: Header, proof: Proof, expected: Expected, keys_of: KeysOf, now: float) -> Sender:
    """Who made the envelope. Raises ContextError, SignatureError, or what ``keys_of`` raises."""
    if proof.head != header.head:
        raise SignatureError("The proof belongs to another envelope.")
    _check_context(header.context, expected)
    _check_times(header.context, now)
    _verify_author(header, proof, keys_of)
    root = _verify_chain(header, keys_of)
    return Sender(header.context.sender, root.user, root.sender, signed=True)


def _check_context(context: Context, expected: Expected) -> None:
    """The databases are compared as JSON: order and every parameter count."""
    if canonical(list(context.databases)) != canonical(list(expected.databases)):
        raise ContextError("The envelope was made for other databases than the task's.")
    for name in ("direction", "task", "collaboration", "recipient", "image", "attempt"):
        if getattr(context, name) != getattr(expected, name):
            raise ContextError(f"The envelope was made for another {name} than the one that it came with.")
    if expected.sender is not None and context.sender != expected.sender:
        raise ContextError("The envelope was made by another organization than the one that it came from.")


def _check_times(context: Context, now: float) -> None:
    """What was answered may be read at any time, also where the clock of its node was ahead."""
    if context.direction != "input":
        return
    if context.created > now + CLOCK_SKEW:
        raise ContextError(
            "The envelope was made in the future: the sender's clock and this one differ by more than 5 minutes."
        )
    if context.expires < now or not 0 <= context.expires - context.created <= LONGEST_LIFE:
        raise ContextError("The envelope has expired, or lives longer than 30 days: create the task again.")


def _verify_author(header: Header, proof: Proof, keys_of: KeysOf) -> None:
    context, certificate = header.context, header.certificate
    keys = keys_of(context.sender)
    if certificate is not None:
        if (certificate.organization, certificate.user) != (context.sender, context.user):
            raise SignatureError("The certificate in the envelope is for another user.")
        if keys.revokes(certificate):
            raise SignatureError(f"The certificate of user {certificate.user} was revoked by their organization.")
    present, *retired = keys.signing_keys(at=context.created)
    try:
        _verify_signature(header, proof, present)
    except SignatureError:
        if not any(_holds(header, proof, key) for key in retired):
            raise


def _holds(header: Header, proof: Proof, issuer: bytes) -> bool:
    try:
        _verify_signature(header, proof, issuer)
    except SignatureError:
        return False
    return True


def _verify_signature(header: Header, proof: Proof, issuer: bytes) -> None:
    """By the issuer's own key, or by one that it certified."""
    certificate = header.certificate
    proof.verify(issuer if certificate is None else certificate.verify(issuer, at=header.context.created))


def _verify_chain(header: Header, keys_of: KeysOf) -> Context:
    """The context of the first input, the user's own."""
    links = [(parse_link(proof), proof) for proof in header.chain]
    contexts = [*(link.context for link, _ in links), header.context]
    if contexts[0].parent is not None:
        raise SignatureError("The chain of the envelope does not begin with a user's task.")
    for (link, proof), following in zip(links, contexts[1:], strict=True):
        _check_link(link.context, following)
        _verify_author(link, proof, keys_of)
    return contexts[0]


def parse_link(proof: Proof) -> Header:
    """The header that a proof is about; raises SignatureError when it is none, or has more than a header."""
    try:
        header = parse_header(proof.head)
    except ValueError as error:
        raise SignatureError("A link of the envelope's chain is not a header.") from error
    if header.head != proof.head:
        raise SignatureError("A link of the envelope's chain is longer than its header.")
    return header


def _check_link(link: Context, following: Context) -> None:
    if link.direction != "input" or link.task != following.parent or link.recipient != following.sender:
        raise SignatureError("A link of the envelope's chain leads elsewhere.")
    if (link.collaboration, link.image) != (following.collaboration, following.image):
        raise SignatureError("A link of the envelope's chain is of another collaboration or image.")
    if link.expires < following.created - CLOCK_SKEW:
        raise SignatureError("A link of the envelope's chain had expired when the child task was made.")
