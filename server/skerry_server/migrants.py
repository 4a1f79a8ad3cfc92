"""The YAML that vantage6 4.x's ``server import`` reads: organizations with users, collaborations with nodes.

All that is wrong is named at once, each with its place in the file.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from skerry_server.doors.fields import Email, Name, Short, Text, Username
from skerry_server.errors import InvalidRequest

_LARGEST_FILE = 16 << 20


class Problems(InvalidRequest):
    """All that is wrong with a file, each with its place; nothing of it was imported."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("\n".join(["Nothing was imported:", *(f"  {one}" for one in found)]))
        self.found = found


def _words(value: Any) -> Any:
    """YAML reads a postal code as a number."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _api_key(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError("an API key is a UUID") from None


Words = Annotated[Short, BeforeValidator(_words)]


class _Entry(BaseModel):
    """An empty value counts as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value


class Person(_Entry):
    username: Username
    password: Annotated[Text, BeforeValidator(_words)]
    firstname: Words | None = None
    lastname: Words | None = None
    email: Email | None = None
    roles: list[str] | None = None

    @property
    def address(self) -> str:
        """Each user has one here; this one reaches nobody."""
        return self.email or f"{self.username}@localhost"


class Member(_Entry):
    name: Annotated[Name, BeforeValidator(_words)]
    domain: Words | None = None
    address1: Words | None = None
    address2: Words | None = None
    zipcode: Words | None = None
    country: Words | None = None
    public_key: Text | None = None
    users: list[Person] = []


class Participant(_Entry):
    name: Annotated[Name, BeforeValidator(_words)]
    api_key: Annotated[str, AfterValidator(_api_key)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_only(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Alliance(_Entry):
    name: Annotated[Name, BeforeValidator(_words)]
    participants: list[Participant] = []
    encrypted: bool = True
    tasks: list[Any] = []


class Migration(_Entry):
    """What a file holds."""

    organizations: list[Member] = []
    collaborations: list[Alliance] = []


def read(path: Path) -> Migration:
    """Raises Problems."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise Problems([f"{path} can't be read: {error.strerror}."]) from error
    if len(text) > _LARGEST_FILE:
        raise Problems([f"{path} is larger than {_LARGEST_FILE} bytes: import it in parts."])
    return parse(text)


def parse(text: bytes) -> Migration:
    """Raises Problems."""
    try:
        value = yaml.load(text, Loader=_Plain)  # a SafeLoader # noqa: S506 # nosec B506
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Problems([f"The file is not YAML that can be read: {' '.join(str(error).split())}."]) from error
    if not isinstance(value, dict) or not value:
        raise Problems(['The file must hold "organizations" and "collaborations".'])
    try:
        return Migration.model_validate(value)
    except (ValidationError, RecursionError) as error:
        raise Problems(_sentences(error)) from error


class _Plain(yaml.SafeLoader):
    """Without aliases: a few of them inside each other would be read as more than fits into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read; write the entry out")
        return super().compose_node(parent, index)


def _sentences(error: ValidationError | RecursionError) -> list[str]:
    if isinstance(error, RecursionError):
        return ["The file is nested too deeply."]
    return [f"{_place(one['loc'])}: {_reason(one['type'], one['msg'])}" for one in error.errors(include_input=False)]


def _reason(kind: str, message: str) -> str:
    known = {"extra_forbidden": "there is no such key", "missing": "is missing"}
    return known.get(kind, message.removeprefix("Value error, "))


def _place(steps: tuple[int | str, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".") or "the file"
