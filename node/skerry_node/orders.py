"""What the server tells a node to do: hostile until it is parsed (native protocol, section 4)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skerry.errors import ServerError
from skerry_node.launchers.launcher import Attempt

_ID = Field(ge=1, lt=1 << 53)


class Message(BaseModel):
    """Fields that this version does not know are let pass: a newer server may send them."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class OrderedDatabase(Message):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    label: str


class OrderedTask(Message):
    id: int = _ID
    uuid: str = Field(min_length=1, max_length=64)
    parent_id: int | None = Field(default=None, ge=1, lt=1 << 53)
    job_id: int = _ID
    image: str = Field(min_length=1, max_length=1024)
    databases: list[OrderedDatabase] = Field(max_length=256)
    store_url: str | None = Field(default=None, max_length=2048)


class Order(Message):
    """One run. ``raw`` is all that the server said of it, for the proxy."""

    run: int = _ID
    attempt: int = _ID
    task: OrderedTask
    token: str
    token_expires_in: float = Field(ge=0)
    raw: dict[str, Any] = Field(default_factory=dict, repr=False)

    @property
    def key(self) -> Attempt:
        return Attempt(self.run, self.attempt)


class Stop(Message):
    run: int = _ID
    attempt: int = _ID
    reason: str

    @property
    def key(self) -> Attempt:
        return Attempt(self.run, self.attempt)


class ServerHead(Message):
    """How far the server's own audit chain has come."""

    writer: str = Field(min_length=1, max_length=64)
    sequence: int = Field(ge=0, lt=1 << 53)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")


class Reserved(Message):
    """The address of a run in the VPN, and the network that it is of."""

    address: str = Field(max_length=15)
    subnet: str = Field(max_length=18)


class Others(Message):
    """What the server hands on of the other runs of a job: to be believed only when it was checked."""

    version: str = Field(min_length=1, max_length=64)
    statements: list[dict[str, Any]] = Field(max_length=4096)


class OthersOf(Others):
    run: int = _ID
    attempt: int = _ID

    @property
    def key(self) -> Attempt:
        return Attempt(self.run, self.attempt)


class Work(Message):
    """The answer of the work call."""

    runs: list[Order] = Field(max_length=1024)
    stop: list[Stop] = Field(max_length=1024)
    finished_jobs: list[int] = Field(max_length=65536)
    peers: list[OthersOf] = Field(default=[], max_length=1024)
    head: ServerHead | None = None


class Organization(Message):
    id: int = _ID
    name: str


class Collaboration(Message):
    id: int = _ID
    name: str
    encrypted: bool
    accept: str


class Self(Message):
    """What the server says that this node is."""

    id: int = _ID
    name: str
    organization: Organization
    collaboration: Collaboration


class JoinedOrganization(Organization):
    """``keys``: whether it has registered any."""

    keys: bool


class JoinedCollaboration(Message):
    id: int = _ID
    name: str
    encrypted: bool


class Welcome(Message):
    """What a node gets for an invitation."""

    api_key: str = Field(min_length=16, max_length=256, repr=False)
    name: str
    organization: JoinedOrganization
    collaboration: JoinedCollaboration


def parse_welcome(value: Any) -> Welcome:
    """Raises ServerError, naming the field."""
    try:
        return Welcome.model_validate(value)
    except ValidationError as error:
        raise _malformed("answer to an invitation", error) from error


def parse_reserved(value: Any) -> Reserved:
    """Raises ServerError, naming the field."""
    try:
        return Reserved.model_validate(value)
    except ValidationError as error:
        raise _malformed("address for a run", error) from error


def parse_others(value: Any) -> Others:
    """Raises ServerError, naming the field."""
    try:
        return Others.model_validate(value)
    except ValidationError as error:
        raise _malformed("list of peers", error) from error


def parse_order(value: Any) -> Order:
    """Raises ServerError, naming the field."""
    try:
        order = Order.model_validate(value)
    except ValidationError as error:
        raise _malformed("order", error) from error
    return order.model_copy(update={"raw": value})


def parse_work(value: Any) -> Work:
    """Raises ServerError, naming the field."""
    try:
        work = Work.model_validate(value)
    except ValidationError as error:
        raise _malformed("answer to the work call", error) from error
    raws = zip(work.runs, value["runs"], strict=True)
    return work.model_copy(update={"runs": [order.model_copy(update={"raw": raw}) for order, raw in raws]})


def parse_self(value: Any) -> Self:
    """Raises ServerError, naming the field."""
    try:
        return Self.model_validate(value)
    except ValidationError as error:
        raise _malformed("answer to node/self", error) from error


def _malformed(what: str, error: ValidationError) -> ServerError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return ServerError(f'The server\'s {what} has something wrong in its field "{where}": {first["msg"]}.', 200)
