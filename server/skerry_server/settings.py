"""The server's configuration: one YAML file, read once by the command line and passed down."""

from __future__ import annotations

import difflib
import secrets
import stat
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from skerry.errors import ConfigurationError
from skerry.transport import is_loopback
from skerry_server import addresses
from skerry_server.keepsakes import kept

_MINIMUM_SECRET = 32
_LAST_PORT = 65_535
_ADDRESS = r"^https?://[^\s/@]+$"
_ORIGIN = r"^(\*|https?://[^\s/,]+)$"
_SMALLEST_SUBNET, _LARGEST_SUBNET = 26, 8
_SECRET_FILE = "jwt-secret"  # noqa: S105 - the name of a file


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tokens(_Strict):
    """How long tokens live. ``secret`` signs them; without one, a random secret is made at the first start."""

    secret: str | None = Field(None, repr=False)
    access_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 360
    refresh_minutes: Annotated[int, Field(ge=1, le=90 * 24 * 60)] = 2880
    run_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 15


class Leases(_Strict):
    """How long a node may be silent about a run, and when the run is then given up."""

    seconds: Annotated[int, Field(ge=1, le=86_400)] = 120
    lost_after_seconds: Annotated[int, Field(ge=0, le=365 * 86_400)] = 3600


class Limits(_Strict):
    """Bounds on what requests may cost.

    ``uploads``: large bodies that come at the same time. ``failures``: wrong credentials from one address in a quarter
    of an hour. ``waiting_bytes``: what one caller's uploads may hold that wait for their tasks. ``tasks_per_job``: with
    all that its algorithms create, and those that they start.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 16
    uploads: Annotated[int, Field(ge=1, le=1024)] = 64
    waiters: Annotated[int, Field(ge=1)] = 20_000
    result_bytes: Annotated[int, Field(ge=1024)] = 64 << 30
    waiting_bytes: Annotated[int, Field(ge=1 << 20)] = 16 << 30
    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    tasks_per_job: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Tls(_Strict):
    """The server's own certificate (PEM, with those that lead to its authority) and its private key."""

    certificate: str
    private_key: str


class Mail(_Strict):
    """Where letters are handed in; without it, nobody can be sent a token for a lost password."""

    host: str
    sender: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    security: Annotated[str, Field(pattern="^(starttls|tls|none)$")] = "starttls"
    username: str | None = None
    password: str | None = Field(None, repr=False)


class Stores(_Strict):
    """Algorithm stores that users may register. ``allowed`` names hosts that may lie in a private network."""

    allowed: list[str] = []


class FileStore(_Strict):
    """Large payloads as files. ``folder``: also of uploads under way, whatever the store."""

    kind: Literal["files"] = "files"
    folder: str = "payloads"


class S3Store(_Strict):
    """Large payloads as objects of a bucket, in any store that speaks S3. ``keys``: a file as ``S3Keys`` says.

    ``virtual_hosts``: the bucket is the first part of the host's name, and not of the path. ``ca_file``: of a private
    certificate authority.
    """

    kind: Literal["s3"]
    endpoint: Annotated[str, Field(pattern=_ADDRESS)]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    keys: str
    region: Annotated[str, Field(pattern="^[a-z0-9-]+$")] = "us-east-1"
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$")] = ""
    virtual_hosts: bool = False
    ca_file: str | None = None
    folder: str = "payloads"


class S3Keys(_Strict):
    """What is in the file of keys, which is nobody else's to read."""

    access_key_id: Annotated[str, Field(min_length=1, repr=False)]
    secret_access_key: Annotated[str, Field(min_length=1, repr=False)]


def _kind(value: object) -> object:
    """Files, unless it says otherwise."""
    return value.get("kind", "files") if isinstance(value, dict) else getattr(value, "kind", None)


BlobStore = Annotated[
    Annotated[FileStore, Tag("files")] | Annotated[S3Store, Tag("s3")],
    Discriminator(
        _kind,
        custom_error_type="no_such_kind",
        custom_error_message='"kind" is files or s3',
    ),
]
"""Where large payloads lie; with this section, vantage6's clients may send and fetch them as streams."""


def _network(value: object) -> object:
    """Of an address or a network in text; raises ValueError for a text that is neither."""
    return ip_network(value) if isinstance(value, str) else value


def _subnet(value: object) -> object:
    """Of a private IPv4 network in text; raises ValueError."""
    if not isinstance(value, str):
        return value
    network = IPv4Network(value)
    if not network.is_private or not _SMALLEST_SUBNET >= network.prefixlen >= _LARGEST_SUBNET:
        raise ValueError("choose a private network of 6 to 24 bits, such as 10.76.0.0/16")
    return network


class Metrics(_Strict):
    """Where Prometheus finds what one process tells; whoever reaches it may read it."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 9464


class Vpn(_Strict):
    """From which network runs that talk to each other get their addresses. It must not be used around any node."""

    subnet: Annotated[IPv4Network, BeforeValidator(_subnet)] = IPv4Network("10.76.0.0/16")


class Settings(_Strict):
    """``folder`` is where the file lies: relative paths start there."""

    folder: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 5000
    api_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)*$")] = "/api"
    database: str | None = None
    state_folder: str = "."
    tls: Tls | None = None
    trusted_proxies: list[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]] = []
    cors_allowed_origins: list[Annotated[str, Field(pattern=_ORIGIN)]] = []
    tokens: Tokens = Tokens()
    two_factor_auth: bool = False
    mail: Mail | None = None
    stores: Stores = Stores()
    blob_store: BlobStore | None = None
    leases: Leases = Leases()
    limits: Limits = Limits()
    vpn: Vpn = Vpn()
    retention_days: Annotated[float, Field(gt=0, le=36_500, strict=False)] | None = None
    drain_seconds: Annotated[float, Field(ge=0, le=300, strict=False)] = 0
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    metrics: Metrics | None = None
    log_format: Literal["text", "json"] = "text"
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"

    @property
    def state(self) -> Path:
        return self.folder / self.state_folder

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state / 'skerry.sqlite'}"

    @property
    def payload_folder(self) -> Path:
        return self.state / (self.blob_store or FileStore()).folder


TEMPLATE = """\
# The configuration of a skerry server. What is commented out shows the default.

# host: 127.0.0.1        # other machines are served with TLS only: set tls, or trusted_proxies
# port: 5000
# api_path: /api
# state_folder: .        # the database, large payloads and the secret; relative to this file
# database: null         # a database URL; null means SQLite in the state folder
# processes: 1           # so many of them share the address and the machine's processors
# tls: null              # certificate: server.pem and private_key: server-key.pem, relative to this file
# trusted_proxies: []    # addresses or networks of reverse proxies that speak TLS: ["10.0.0.5", "10.1.0.0/24"];
#                        # nobody else may then speak to the server, and their X-Forwarded-For is believed
# cors_allowed_origins: []   # web pages of these origins may call the server from a browser
# log_level: info
# log_format: text       # or json: an object a line, with the ids of the run and task that it is about
# metrics: null          # for Prometheus: host (127.0.0.1) and port (9464); each further process has the next port
# retention_days: null   # so long after its end a run's input, result and log are removed; null: never
# drain_seconds: 0       # before it stops, say so at /skerry/health/ready for as long: load balancers look there

# tokens:
#   secret: null         # at least 32 characters; null: made at the first start, kept in the state folder
#   access_minutes: 360
#   refresh_minutes: 2880
#   run_minutes: 15

# two_factor_auth: false   # true: users log in with a code of their authenticator application, too
# mail: null             # null: nobody can recover a lost password; else host, port, sender, and where needed
#                        # username, password and security (starttls, tls; none for a relay on this machine)

# stores:
#   allowed: []            # hosts of algorithm stores that may lie in a private network: ["store.example.org"]

# vpn:
#   subnet: 10.76.0.0/16   # addresses of runs that talk to each other; not one that is in use around a node

# blob_store: null       # null: inputs come with their task. Else vantage6's clients since 4.13 send them as streams.
#                        # With kind: files, its folder (payloads) is that of all large ones, relative to state_folder.
#                        # With kind: s3 they are objects, and only uploads under way lie in the folder: endpoint
#                        # (https://s3.example.org), bucket, keys (a file with access_key_id and secret_access_key),
#                        # and where needed region (us-east-1), prefix, ca_file, virtual_hosts (true, false)

# leases:
#   seconds: 120             # how long a node may be silent about a run that it holds
#   lost_after_seconds: 3600 # when the run is given up after that

# limits:
#   threads: 16          # requests that are worked on at the same time; waiting ones need none
#   uploads: 64          # large bodies that come at the same time; more are told to come again
#   waiters: 20000
#   result_bytes: 68719476736
#   waiting_bytes: 17179869184   # what the uploads of one user or run may hold that wait for their tasks
#   failures: 100        # wrong passwords, keys and tokens from one address in a quarter of an hour
#   tasks_per_job: 10000 # a task with all that algorithms create below it
"""


def load(path: Path) -> Settings:
    """Raises ConfigurationError, naming the key and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(
            f"The configuration {path} can't be read: {reason}. Make one with `skerry server new FOLDER`."
        ) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Settings:
    """Raises ConfigurationError for anything that is not a configuration; ``path`` is for its text."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if isinstance(value, dict) and "folder" in value:
        raise ConfigurationError(f'{path}: there is no key "folder"; did you mean "state_folder"?')
    if not isinstance(value or {}, dict):
        raise ConfigurationError(f'{path} must hold keys and values such as "port: 5000".')
    try:
        found = Settings(**{**(value or {}), "folder": path.parent.absolute()})
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_first_sentence(error)}") from error
    except TypeError as error:
        raise ConfigurationError(f"{path}: every key must be a word.") from error
    if found.processes > 1:
        _check_processes(found, path)
    return found


def _check_processes(settings: Settings, path: Path) -> None:
    if settings.metrics is not None:
        ports = range(settings.metrics.port, settings.metrics.port + settings.processes)
        if ports[-1] > _LAST_PORT or settings.port in ports:
            raise ConfigurationError(
                f'{path}: "metrics.port": {settings.processes} processes use the ports {ports[0]} to {ports[-1]}: '
                "choose one from which on all are free."
            )


def check_exposure(settings: Settings) -> None:
    """Raises ConfigurationError where passwords would travel in the clear, or the private key is not private."""
    if settings.tls is not None:
        _check_private(settings.folder / settings.tls.private_key, "tls.private_key")
    elif not settings.trusted_proxies and not addresses.is_loopback(settings.host):
        raise ConfigurationError(
            f'"host": {settings.host} is open to other machines, and this server would speak to them in the clear. Set '
            '"tls", or "trusted_proxies" when a reverse proxy with TLS stands before it, or listen on 127.0.0.1.'
        )


def _check_private(path: Path, key: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f'"{key}": {path} can\'t be read: {error.strerror}.') from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f'"{key}": {path} is open to other users of this machine: chmod 600 {path}')


def s3_keys(settings: Settings, store: S3Store) -> S3Keys:
    """Raises ConfigurationError, which never shows what is in the file."""
    path = settings.folder / store.keys
    _check_private(path, "blob_store.keys")
    try:
        return S3Keys.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        sentence = f'"blob_store.keys": {path} must hold access_key_id and secret_access_key, and nothing else.'
        raise ConfigurationError(sentence) from None


def check_store(store: S3Store) -> None:
    """Raises ConfigurationError where payloads would travel to the store in the clear."""
    if store.endpoint.startswith("http://") and not is_loopback(store.endpoint):
        raise ConfigurationError(f'"blob_store.endpoint": {store.endpoint} is on another machine: use https.')


def jwt_secret(settings: Settings) -> str:
    """The secret that signs tokens: the configured one, or the one that the first start made (mode 0600).

    Raises ConfigurationError for a weak one: whoever guesses it is anybody.
    """
    secret = settings.tokens.secret or kept(settings.state / _SECRET_FILE, lambda: secrets.token_urlsafe(48))
    if len(secret) < _MINIMUM_SECRET or len(set(secret)) < _MINIMUM_SECRET // 4:
        raise ConfigurationError(
            f'"tokens.secret" is too weak: at least {_MINIMUM_SECRET} random characters, or remove it to have one made.'
        )
    return secret


def _first_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    model, names = _find(first["loc"])
    where = ".".join(names)
    if first["type"] == "extra_forbidden":
        return f'there is no key "{where}"{_nearest(model, names[-1])}.'
    return f'"{where}": {first["msg"]}.'


def _find(location: Sequence[int | str]) -> tuple[type[BaseModel], list[str]]:
    """The section in which something is wrong, and how that is called: without the kind that chose the section."""
    among: list[type[BaseModel]] = [Settings]
    section: type[BaseModel] = Settings
    names: list[str] = []
    for part in map(str, location):
        if len(among) > 1:
            among = [one for one in among if part in get_args(one.model_fields["kind"].annotation)]
        else:
            names.append(part)
            section = among[0] if among else section
            field = section.model_fields.get(part)
            among = list(_sections(field.annotation)) if field is not None else []
    return section, names


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _sections(one)


def _nearest(model: type[BaseModel], name: str) -> str:
    known = set(model.model_fields) - ({"folder"} if model is Settings else set())
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean "{near[0]}"' if near else f", only {', '.join(sorted(known))}"
