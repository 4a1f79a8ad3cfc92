"""What the door answers, for its description; a test holds every answer against it."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from skerry.wire import Refusal, Status
from skerry_server.policy import Operation, Resource, Scope

_Row = TypeVar("_Row")
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$")]
Presence = Literal["online", "offline"]
Address = Annotated[str, Field(description="Where to ask for these.")]


class Answer(BaseModel):
    """All of these fields and no other."""

    model_config = ConfigDict(extra="forbid")


class Links(Answer):
    """Of the pages of a list."""

    self: str
    first: str = ""
    previous: str = ""
    next: str = ""
    last: str = ""


class Page(Answer, Generic[_Row]):
    data: list[_Row]
    links: Links


class Related(Answer):
    """Another thing."""

    id: int
    link: str
    methods: list[str]


class Message(Answer):
    msg: str


class Organization(Answer):
    id: int
    name: str
    domain: str | None
    address1: str | None
    address2: str | None
    zipcode: str | None
    country: str | None
    public_key: str
    collaborations: Address
    nodes: Address
    users: Address
    tasks: Address
    runs: Address
    studies: Address


class Collaboration(Answer):
    id: int
    name: str
    encrypted: bool
    accept: Literal["native", "vantage6", "both"]
    organizations: Address | list[Organization]
    nodes: Address
    tasks: Address
    algorithm_stores: Address
    studies: Address


class Study(Answer):
    id: int
    name: str
    collaboration: Related
    organizations: Address | list[Organization]
    tasks: Address


class Setting(Answer):
    key: str
    value: str


class Node(Answer):
    """``refuses``: why it takes no runs, though it is online."""

    id: int
    type: Literal["node"]
    name: str
    ip: str | None
    last_seen: Moment | None
    status: Presence
    refuses: Refusal | None
    organization: Related
    collaboration: Related
    config: list[Setting]


class NodeWithKey(Node):
    """The key is shown this once."""

    api_key: str


class ApiKey(Answer):
    api_key: str


class Permissions(Answer):
    roles: list[int]
    rules: list[int]
    orgs_in_collabs: list[int]


class User(Answer):
    id: int
    type: Literal["user"]
    username: str
    firstname: str | None
    lastname: str | None
    email: str
    ip: None
    last_seen: Moment | None
    status: Presence
    disabled: bool
    otp_secret: None
    last_email_failed_login_sent: None
    last_email_recover_password_sent: None
    organization: Related
    roles: Address
    rules: Address


class UserWithPermissions(User):
    permissions: Permissions


class Role(Answer):
    id: int
    name: str
    description: str | None
    is_default_role: bool
    organization: Related | None
    rules: Address
    users: Address


class Rule(Answer):
    id: int
    name: Resource
    operation: Annotated[str, Field(json_schema_extra={"enum": [one.upper() for one in Operation]})]
    scope: Annotated[str, Field(json_schema_extra={"enum": [one.upper() for one in Scope]})]
    description: str
    users: Address


class TaskDatabase(Answer):
    """``parameters`` is JSON in a string."""

    label: str
    parameters: str


class TaskWithoutRuns(Answer):
    id: int
    uuid: str
    name: str | None
    description: str | None
    image: str
    job_id: int
    created_at: Moment
    status: Status
    finished_at: Moment | None
    collaboration: Related
    study: Related | None
    algorithm_store: Related | None
    init_org: Related
    init_user: Related | None
    parent: Related | None
    children: Address
    results: Address | list[Result]
    databases: list[TaskDatabase]


class Task(TaskWithoutRuns):
    runs: Address | list[Run]


class TaskStatus(Answer):
    status: Status


class RunNode(Answer):
    id: int
    ip: str | None
    status: Presence
    name: str


class RunPort(Answer):
    id: int
    port: int
    label: str | None


class Run(Answer):
    """Where ``blob_storage_used``, ``input`` is the UUID of a blob."""

    id: int
    input: str | None
    status: Status
    log: str | None
    reason: str | None
    attempt: int
    assigned_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    cleanup_at: str | None
    blob_storage_used: bool
    organization: Related
    task: Related | TaskWithoutRuns
    results: Related
    node: RunNode | None
    ports: list[RunPort]


class Result(Answer):
    """Where ``blob_storage_used``, ``result`` is the UUID of a blob."""

    id: int
    result: str | None
    cleanup_at: str | None
    blob_storage_used: bool
    run: Related
    task: Related


class Columns(Answer):
    columns: list[str]


class Addressed(Answer):
    """Where a port can be reached."""

    port: int
    label: str | None
    ip: str | None
    organization_id: int
    task_id: int
    parent_id: int | None


class Addresses(Answer):
    addresses: list[Addressed]


class Store(Answer):
    id: int
    name: str
    url: str
    collaborations: list[Related]


class Blob(Answer):
    uuid: str


class BlobStatus(Answer):
    blob_store_enabled: bool


class Version(Answer):
    version: str


class Health(Answer):
    database: bool


class Tokens(Answer):
    access_token: str
    refresh_token: str
    refresh_url: str


class UserTokens(Tokens):
    user_url: str


class NodeTokens(Tokens):
    node_url: str


class Enrolment(Answer):
    """The secret of a second factor, shown this once."""

    qr_uri: str
    otp_secret: str
    msg: str


class ValidUser(Answer):
    msg: str
    user_id: int
    username: str
    email: str
    organization_id: int


class ValidNode(Answer):
    msg: str
    node_id: int
    name: str
    organization_id: int


Octets = Annotated[bytes, Field(json_schema_extra={"contentMediaType": "application/octet-stream"})]
Nothing = Any
"""Of an operation that is always refused."""
