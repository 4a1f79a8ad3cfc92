"""What a node's owner may say about who may do what: the sections of the configuration, without the deciding."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from skerry_node.references import describe_problem
from skerry_node.sections import Ids, Section, Size, Words


def _check_entry(entry: str) -> str:
    problem = describe_problem(entry)
    if problem is not None:
        raise ValueError(problem)
    return entry


Entry = Annotated[str, AfterValidator(_check_entry)]
"""A name, a name with a tag or a digest, or a regular expression that matches whole names."""
Entries = Annotated[tuple[Entry, ...], Field(strict=False)]


class Rule(Section):
    """Which images are admitted, and for what. A key that is left out restricts nothing, an empty list admits nothing.

    ``databases`` are the labels that a task may name, ``users`` and ``organizations`` are ids. ``approve_first``: each
    function of each image waits until the owner has approved it. ``gpus``: how many of the machine's a run gets.
    """

    algorithm: Entry
    functions: Words | None = None
    databases: Words | None = None
    users: Ids | None = None
    organizations: Ids | None = None
    approve_first: bool = False
    gpus: Annotated[int, Field(ge=0, le=1024)] | Literal["all"] = 0


def _read_rule(value: object) -> object:
    return {"algorithm": value} if isinstance(value, str) else value


class OnlyFor(Section):
    """Whom one database is for. Each list that is there must hold what asks."""

    algorithms: Entries | None = None
    functions: Words | None = None
    users: Ids | None = None
    organizations: Ids | None = None


LEAST_PROCESSES = 32
"""Less can't be meant: the threads of the engine's runtime, which becomes the container, are counted until it has."""

_Processes = TypeAdapter(Annotated[int, Field(ge=LEAST_PROCESSES, lt=1 << 20)])
_OpenFiles = TypeAdapter(Annotated[int, Field(ge=4, lt=1 << 20)])
_Bytes = TypeAdapter(Size)
_Flag = TypeAdapter(Literal[True])
_RELAXABLE: dict[str, TypeAdapter[Any]] = {
    "memory": _Bytes,
    "processes": _Processes,
    "temporary": _Bytes,
    "open_files": _OpenFiles,
    "shared_memory": _Bytes,
    "writable_root": _Flag,
    "executable_tmp": _Flag,
    "engine_seccomp": _Flag,
}
"""What may be relaxed for one image, and to what; the strict values stand in sandbox.py."""


class Relaxation(Section):
    """One setting of the sandbox that the owner relaxes for one image, named by its digest or id.

    ``memory``, ``temporary`` and ``shared_memory`` are sizes, ``processes`` and ``open_files`` numbers; the others are
    ``true``: a root file system that can be written, programs in /tmp, the engine's own list of system calls.
    """

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    setting: str
    value: Any

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "setting" not in given or "value" not in given:
            return given
        kind = _RELAXABLE.get(str(given["setting"]))
        if kind is None:
            raise ValueError(f'no setting "{given["setting"]}" can be relaxed; there are {", ".join(_RELAXABLE)}')
        try:
            return {**given, "value": kind.validate_python(given["value"])}
        except ValidationError as error:
            raise ValueError(f"{given['setting']} can't be {given['value']!r}: {error.errors()[0]['msg']}") from error

    def __str__(self) -> str:
        return f"{self.setting} = {self.value} for {self.digest[:19]}"


def relaxations_of(relaxations: Iterable[Relaxation], names: Container[str]) -> tuple[Relaxation, ...]:
    """Those for one image, which is known by its id and its digests."""
    return tuple(one for one in relaxations if one.digest in names)


class Policies(Section):
    """What the owner allows. A list that is left out allows all, an empty one nothing.

    ``allowed_algorithms`` holds rules, or only what their ``algorithm`` is; the first that fits a task decides.
    ``allowed_algorithm_stores`` are addresses: which store a task names is the server's claim, so they can only
    narrow what the rules admit. Users and organizations are ids, since a name is only the server's claim. ``vpn``
    allow: images that declare ports talk to the other runs of their job.
    """

    allowed_algorithms: (
        Annotated[tuple[Annotated[Rule, BeforeValidator(_read_rule)], ...], Field(strict=False)] | None
    ) = None
    allowed_algorithm_stores: Words | None = None
    allowed_users: Ids | None = None
    allowed_organizations: Ids | None = None
    approval_hours: float = Field(default=72.0, gt=0, le=720)
    unsigned_tasks: Literal["refuse", "allow"] = "refuse"
    require_confirmed_keys: bool = False
    vpn: Literal["refuse", "allow"] = "refuse"
    relaxations: Annotated[tuple[Relaxation, ...], Field(strict=False)] = ()
