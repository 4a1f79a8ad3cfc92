"""Names of images, and the entries by which an owner means them: rules without I/O."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_PATTERN = re.compile(r"[*\\?$^\[\](){}|+]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,254}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?")
DOCKER_HUB = "docker.io"
_HUBS = frozenset({DOCKER_HUB, "index.docker.io"})
_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of an image's name. ``repository`` has its registry, also where the name leaves it out."""

    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        name, _, digest = text.partition("@")
        head, slash, tail = name.rpartition("/")
        # A colon before the last slash belongs to the registry's port.
        last, _, tag = tail.partition(":")
        return cls(_complete(f"{head}{slash}{last}"), tag or None, digest or None)

    @property
    def registry(self) -> str:
        """The host, with its port where it has one."""
        return self.repository.partition("/")[0]

    @property
    def tags(self) -> set[str | None]:
        """How its tag may be written: an engine takes a name without one for the latest."""
        return {None, _LATEST} if self.digest is None and self.tag in {None, _LATEST} else {self.tag}


def _complete(name: str) -> str:
    """With the registry that an engine takes when none is named."""
    host, slash, rest = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = DOCKER_HUB, name
    if host not in _HUBS:
        return name
    return f"{DOCKER_HUB}/{rest}" if "/" in rest else f"{DOCKER_HUB}/library/{rest}"


def is_pattern(entry: str) -> bool:
    """Whether it is a regular expression. A dot does not make one: names have dots."""
    return _PATTERN.search(entry) is not None


def describe_problem(entry: str) -> str | None:
    """Why no image could be meant by the entry; None when all is well."""
    if not is_pattern(entry):
        return None if _NAME.fullmatch(entry) else f'"{entry}" is not the name of an image'
    try:
        re.compile(entry)
    except re.error as error:
        return f'"{entry}" is not a regular expression ({error})'
    return None


def matches(entry: str, reference: str, digests: Collection[str] | None) -> bool:
    """Whether the entry means the image of that name and content.

    A pattern matches the whole name, in one of the spellings that mean the same to an engine. An entry with a digest
    means that very content, under that name; one with a tag no image that is named by its digest, whose tag says
    nothing. ``digests`` None: the content is not known yet, and an entry with a digest could mean it.
    """
    asked = Reference.parse(reference)
    if is_pattern(entry):
        return any(re.fullmatch(entry, spelling) for spelling in _spellings(reference, asked))
    meant = Reference.parse(entry)
    if meant.repository != asked.repository:
        return False
    if meant.digest is not None:
        return digests is None or meant.digest in digests
    return meant.tag is None or (asked.digest is None and meant.tag in asked.tags)


def _spellings(reference: str, asked: Reference) -> set[str]:
    short = asked.repository.removeprefix(f"{DOCKER_HUB}/").removeprefix("library/")
    ends = {(f":{tag}" if tag else "") + (f"@{asked.digest}" if asked.digest else "") for tag in asked.tags}
    names = {asked.repository, short} if asked.repository.startswith(f"{DOCKER_HUB}/") else {asked.repository}
    return {reference} | {name + end for name in names for end in ends}
