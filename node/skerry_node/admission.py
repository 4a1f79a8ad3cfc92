"""What the owner of a node allows: rules without I/O. Anything that is not clearly allowed is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from skerry import contract
from skerry.errors import SkerryError
from skerry_node.config import Policies
from skerry_node.launchers.launcher import Image

_PATTERN = re.compile(r"[*\\?$^\[\](){}|+]")


class NotAdmitted(SkerryError):
    """The owner does not allow this; the sentence is for the user."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. ``origin`` is the organization of ``user``, who stands behind the job; ``organization`` asks
    for this very task. Where ``signed`` is false all three are only the server's claim.
    """

    image: str
    method: str
    databases: Sequence[str]
    organization: int
    origin: int
    user: int | None
    signed: bool


def admit(policies: Policies, labels: Sequence[str], request: Request) -> None:
    """Raises NotAdmitted; what needs the image itself is left to ``admit_image``."""
    if not request.signed and policies.unsigned_tasks != "allow":
        raise NotAdmitted("This node admits signed tasks only, and this one is not signed.")
    if policies.allowed_users is not None and request.user not in policies.allowed_users:
        raise NotAdmitted(f"This node does not admit tasks of user {request.user}.")
    _admit_organizations(policies, request)
    if policies.allowed_functions is not None and request.method not in policies.allowed_functions:
        raise NotAdmitted(f'This node does not admit the function "{request.method}".')
    _admit_databases(labels, request.databases)


def _admit_organizations(policies: Policies, request: Request) -> None:
    """Both count: another organization's central function is no way around the list."""
    allowed = policies.allowed_organizations
    for organization in (request.organization, request.origin):
        if allowed is not None and organization not in allowed:
            raise NotAdmitted(f"This node does not admit tasks of organization {organization}.")


def _admit_databases(labels: Sequence[str], wanted: Sequence[str]) -> None:
    known = ", ".join(labels) or "none"
    for label in wanted:
        if label not in labels:
            raise NotAdmitted(f'This node has no database "{label}"; it has: {known}.')
        if wanted.count(label) > 1:
            raise NotAdmitted(f'The task names the database "{label}" twice.')


def may_admit_image(policies: Policies, reference: str) -> bool:
    """Whether an image of that name could be admitted, so that it is worth a pull."""
    entries = policies.allowed_algorithms
    return entries is None or any(_matches(entry, reference) or _may_be(entry, reference) for entry in entries)


def _may_be(entry: str, reference: str) -> bool:
    """Whether an entry with a digest could mean this image: what it holds is known once it is here."""
    name, _, digest = entry.partition("@")
    return bool(digest) and not _PATTERN.search(entry) and _untagged(name) == _untagged(reference)


def admit_image(policies: Policies, image: Image) -> None:
    """Raises NotAdmitted unless the image that is here is one that the owner allows."""
    entries = policies.allowed_algorithms
    if entries is not None and not is_listed(entries, image):
        raise NotAdmitted(f"This node does not admit the image {image.reference}.")
    if contract.GATE_PORT in image.ports:
        raise NotAdmitted(f"The image {image.reference} exposes port {contract.GATE_PORT}, which is the gate's.")


def is_listed(entries: Sequence[str], image: Image) -> bool:
    """Whether a list of names, names with a digest and patterns means this image."""
    return any(_names(entry, image) for entry in entries)


def _names(entry: str, image: Image) -> bool:
    """An entry with a digest means that very content, under that name."""
    name, _, digest = entry.partition("@")
    if digest and not _PATTERN.search(entry):
        return digest in image.digests and _untagged(name) == _untagged(image.reference)
    return _matches(entry, image.reference)


def _matches(entry: str, reference: str) -> bool:
    if _PATTERN.search(entry):
        return re.fullmatch(entry, reference) is not None
    return entry in {reference, _untagged(reference)}


def _untagged(reference: str) -> str:
    """The name alone. A colon before the last slash belongs to the registry's port."""
    name = reference.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"
