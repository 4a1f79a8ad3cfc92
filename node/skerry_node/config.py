"""A node's configuration: one YAML file, checked as a whole before anything is started."""

from __future__ import annotations

import difflib
import ipaddress
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from skerry import contract
from skerry.errors import ConfigurationError
from skerry_node.services import Address
from skerry_proxy.destinations import Destination
from skerry_proxy.relays import MOST_RELAYS

MAX_SOCKET_PATH = 107
"""sun_path of unix(7) without its closing zero."""

_SERVICES = frozenset({"sql", "sparql", "omop"})
_LABEL = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
_PARAMETER = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(value: object) -> object:
    """Bytes, from a number or a text such as 512m or 2g (powers of 1024); raises ValueError for another text."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("write a number of bytes, or one with a unit, such as 512m or 2g")
    return int(float(match[1]) * _UNITS[match[2].lower()])


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=4096)]
File = Annotated[Path, Field(strict=False)]
Words = Annotated[tuple[str, ...], Field(strict=False)]
Ids = Annotated[tuple[int, ...], Field(strict=False)]


class Section(BaseModel):
    """Unknown keys are errors: a misspelt limit must not silently be no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ServerSettings(Section):
    url: str
    api_path: str = "/api"
    ca_file: File | None = None


class Encryption(Section):
    private_key_file: File


def parse_uri(value: object) -> object:
    """A service's address from a text with ``://`` in it; raises ValueError. All else is taken for a path."""
    return Address.parse(value) if isinstance(value, str) and "://" in value else value


def parse_destination(value: object) -> object:
    """From ``host:port``; raises ValueError."""
    return Destination.parse(value) if isinstance(value, str) else value


DestinationText = Annotated[Destination, BeforeValidator(parse_destination)]


class Database(Section):
    """``uri`` is a path, or the address of a service. ``sql`` as a path is a file of SQLite; ``omop`` and ``other`` are
    files that algorithms read themselves.

    ``password_file``: of the service's user. ``env``: what algorithms are told beside, such as a schema's name, as
    ``<LABEL>_DB_PARAM_<KEY>``.
    """

    label: str = Field(pattern=_LABEL)
    uri: Annotated[File | Address, BeforeValidator(parse_uri)]
    type: Literal["csv", "parquet", "excel", "sqlite", "sql", "sparql", "omop", "folder", "other"]
    password_file: File | None = None
    env: dict[Annotated[str, Field(pattern=_PARAMETER)], str] = Field(default_factory=dict)


def _pattern_problems(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        try:
            re.compile(entry)
        except re.error as error:
            yield f'"{entry}" is not a regular expression ({error})'


def check_patterns(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError unless each is a regular expression, as every name is."""
    for problem in _pattern_problems(entries):
        raise ValueError(problem)
    return entries


Patterns = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(check_patterns)]


class Gate(Section):
    """A service of the owner's that algorithms reach at an address told as ``<NAME>_GATE_ADDRESS``.

    ``algorithms``: as ``allowed_algorithms``; left out, it is open to all that are admitted.
    """

    name: str = Field(pattern=_LABEL)
    destination: DestinationText
    algorithms: Patterns | None = None


class Egress(Section):
    """Hosts and ports that algorithms reach by CONNECT. ``algorithms`` as in a gate."""

    allowed: Annotated[tuple[DestinationText, ...], Field(strict=False, min_length=1)]
    algorithms: Patterns | None = None


class Policies(Section):
    """What the owner allows. A list that is left out allows all, an empty one nothing.

    ``allowed_algorithms`` holds names, names with a tag or a digest, or regular expressions that match whole names.
    Users and organizations are ids: a name is only the server's claim.
    """

    allowed_algorithms: Words | None = None
    allowed_users: Ids | None = None
    allowed_organizations: Ids | None = None
    allowed_functions: Words | None = None
    unsigned_tasks: Literal["refuse", "allow"] = "refuse"
    require_confirmed_keys: bool = False

    @model_validator(mode="after")
    def _patterns(self) -> Self:
        for problem in _pattern_problems(self.allowed_algorithms or ()):
            raise ValueError(f"allowed_algorithms: {problem}")
        return self


class Limits(Section):
    """Bounds of each run; sizes in bytes.

    ``input`` and ``output`` bound what it is given and its result, ``temporary`` /tmp and the job's folder.
    """

    parallel_runs: int = Field(default=4, ge=1, le=64)
    memory: Size = 2 << 30
    cpus: float = Field(default=1.0, ge=0.05, le=1024)
    processes: int = Field(default=256, ge=4, le=32768)
    input: Size = 256 << 20
    output: Size = 256 << 20
    temporary: Size = 128 << 20
    log: Size = 1 << 20
    seconds: float = Field(default=86400.0, ge=1)


class DockerSettings(Section):
    """``host`` None is the engine that DOCKER_HOST names, or the one at the standard socket.

    ``gate`` unix: algorithms are told of the gate's unix socket, for a runtime that shares no loopback.
    """

    host: str | None = None
    holder_image: str = "skerry/holder"
    holder_pool: int = Field(default=2, ge=0, le=64)
    pull: Literal["missing", "always", "never"] = "missing"
    gate: Literal["tcp", "unix"] = "tcp"


class ProcessSettings(Section):
    registry: File


class Config(Section):
    """``uid_base`` None: a range of a thousand users that is this installation's own."""

    name: str = Field(pattern=r"^[^\s\x00-\x1f][^\x00-\x1f]{0,127}$")
    server: ServerSettings
    api_key_file: File
    state_folder: File
    encryption: Encryption | None
    databases: Annotated[tuple[Database, ...], Field(strict=False)] = ()
    gates: Annotated[tuple[Gate, ...], Field(strict=False)] = ()
    egress: Egress | None = None
    policies: Policies = Policies()
    limits: Limits = Limits()
    launcher: Literal["docker", "process"] = "docker"
    docker: DockerSettings = DockerSettings()
    process: ProcessSettings | None = None
    proxy_uid: int = Field(default=64200, ge=1, lt=1 << 31)
    uid_base: int | None = Field(default=None, ge=1000, lt=(1 << 31) - 1000)
    data_group: int | None = Field(default=None, ge=1, lt=1 << 31)
    development: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(database.label for database in self.databases)

    @property
    def control_socket(self) -> Path:
        return self.state_folder / "proxy" / "control.sock"

    def api_key(self) -> str:
        return self.api_key_file.read_text().strip()


def load(path: Path) -> Config:
    """The configuration, its paths absolute and its files there. Raises ConfigurationError, a line a problem."""
    path = path.absolute()
    problems: list[str] = []
    try:
        config = _absolute(Config.model_validate(_read(path)), path.parent)
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors()]
    else:
        problems = list(_problems(config))
    if problems:
        raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def _read(path: Path) -> object:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The configuration {path} can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"The configuration {path} is not YAML: {reason}.") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"The configuration {path} must be keys and values, as skerry node new makes it.")
    return value


def _absolute(config: Config, folder: Path) -> Config:
    """Relative paths are relative to the configuration's own folder."""
    server, encryption, process = config.server, config.encryption, config.process
    changes: dict[str, Any] = {
        "api_key_file": folder / config.api_key_file,
        "state_folder": folder / config.state_folder,
        "databases": tuple(_absolute_database(database, folder) for database in config.databases),
        "server": server.model_copy(update={"ca_file": folder / server.ca_file if server.ca_file else None}),
    }
    if encryption is not None:
        path = folder / encryption.private_key_file
        changes["encryption"] = encryption.model_copy(update={"private_key_file": path})
    if process is not None:
        changes["process"] = process.model_copy(update={"registry": folder / process.registry})
    return config.model_copy(update=changes)


def _absolute_database(database: Database, folder: Path) -> Database:
    uri, password = database.uri, database.password_file
    changes = {
        "uri": uri if isinstance(uri, Address) else folder / uri,
        "password_file": folder / password if password is not None else None,
    }
    return database.model_copy(update=changes)


def _problems(config: Config) -> Iterator[str]:
    yield from _server_problems(config)
    yield from _secret_problems("api_key_file", config.api_key_file)
    if config.encryption is not None:
        yield from _secret_problems("encryption.private_key_file", config.encryption.private_key_file)
    yield from _database_problems(config)
    yield from _relay_problems(config)
    yield from _variable_problems(config)
    yield from _launcher_problems(config)
    if config.policies.allowed_algorithms is None and not config.development:
        yield "policies.allowed_algorithms: say which images may run here (a single .* allows every image)."
    if len(str(config.control_socket)) > MAX_SOCKET_PATH:
        yield f"state_folder: {config.state_folder} is too long a path for a socket; choose a shorter one."


def _server_problems(config: Config) -> Iterator[str]:
    url = urlsplit(config.server.url)
    if url.scheme not in {"http", "https"} or not url.hostname or url.path not in {"", "/"}:
        yield "server.url: write it as https://host or https://host:port; the path belongs into server.api_path."
    elif url.scheme == "http" and not config.development and not _is_loopback(url.hostname):
        yield "server.url: use https; http is for a server on this very machine."
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", config.server.api_path):
        yield "server.api_path: write it as /api, or leave it empty."
    if config.server.ca_file is not None and not config.server.ca_file.is_file():
        yield f"server.ca_file: there is no file {config.server.ca_file}."


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret_problems(key: str, path: Path) -> Iterator[str]:
    """A secret that others can read is none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield f"{key}: {path} can't be read ({error.strerror})."
        return
    if not stat.S_ISREG(mode):
        yield f"{key}: {path} is not a file."
    elif stat.S_IMODE(mode) & 0o077:
        yield f"{key}: {path} is open to other users of this machine; close it with chmod 600 {path}"


def _database_problems(config: Config) -> Iterator[str]:
    seen: set[str] = set()
    for number, database in enumerate(config.databases):
        key = f"databases.{number}"
        if database.label.upper() in seen:
            yield f'{key}.label: "{database.label}" is there twice; upper and lower case make no difference.'
        seen.add(database.label.upper())
        if isinstance(database.uri, Address):
            yield from _service_problems(key, database, database.uri)
        else:
            yield from _file_problems(key, database, database.uri)


def _file_problems(key: str, database: Database, path: Path) -> Iterator[str]:
    if database.type == "sparql":
        yield f"{key}.uri: a sparql database is a service; write its address as http://host:port/path."
    elif database.type == "folder" and not path.is_dir():
        yield f"{key}.uri: there is no folder {path}."
    elif database.type != "folder" and not path.is_file():
        yield f"{key}.uri: there is no file {path}."
    if database.password_file is not None:
        yield f"{key}.password_file: a file needs no password; leave it out."


def _service_problems(key: str, database: Database, address: Address) -> Iterator[str]:
    if database.type not in _SERVICES:
        yield f"{key}.type: a service is of type {', '.join(sorted(_SERVICES))}; a {database.type} database is a path."
    elif address.is_web != (database.type == "sparql"):
        wanted = "http://" if database.type == "sparql" else "the scheme of an SQL server, such as postgresql://"
        yield f"{key}.uri: a database of type {database.type} has an address that begins with {wanted}."
    if database.password_file is not None:
        yield from _secret_problems(f"{key}.password_file", database.password_file)
        if address.user is None:
            yield f"{key}.uri: say whose password it is: scheme://user@host:port/name."


def _relay_problems(config: Config) -> Iterator[str]:
    services = [database for database in config.databases if isinstance(database.uri, Address)]
    if len(services) + len(config.gates) + (config.egress is not None) > MOST_RELAYS:
        yield f"gates: databases that are services, gates and egress together are at most {MOST_RELAYS}."


def _variable_problems(config: Config) -> Iterator[str]:
    """Each variable of a container must have one meaning, and a name that images decode."""
    owners: dict[str, str] = {}
    for key, name in _variables(config):
        if contract.is_plain(name):
            yield f"{key}: the variable {name} would not be decoded in the container; choose another name."
        elif name in owners:
            yield f"{key}: the variable {name} would also be that of {owners[name]}; choose another name."
        owners[name] = key


def _variables(config: Config) -> Iterator[tuple[str, str]]:
    labels = [label.upper() for label in config.labels]
    for number, database in enumerate(config.databases):
        if database.label.upper() in labels[:number]:
            continue  # said already
        details = [*contract.DATABASE_DETAILS, *(contract.parameter(name) for name in database.env)]
        for detail in details:
            yield f"databases.{number}", contract.database_variable(database.label, detail)
    for number, gate in enumerate(config.gates):
        yield f"gates.{number}", contract.gate_variable(gate.name)


def _launcher_problems(config: Config) -> Iterator[str]:
    if config.launcher != "process":
        return
    if not config.development:
        yield "launcher: process is for development only (skerry dev makes such nodes); use docker."
    if config.process is None:
        yield "process.registry: name the folder where skerry algorithm build --launcher process keeps its images."


def _sentence(detail: ErrorDetails) -> str:
    *section, key = [str(part) for part in detail["loc"] if not str(part).startswith("function-")] or [""]
    where = ".".join([*section, key])
    if detail["type"] == "extra_forbidden":
        prefix = f"{'.'.join(section)}: " if section else ""
        return f'{prefix}there is no key "{key}"; {_nearest(section, key)}'
    if detail["type"] == "missing":
        return f"{where}: this key is missing."
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}." if where else f"{message}."


def _nearest(location: list[str], key: str) -> str:
    section: type[BaseModel] = Config
    for part in location:
        section = _SECTIONS.get(part, section)
    near = difflib.get_close_matches(key, section.model_fields, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known are {', '.join(section.model_fields)}."


_SECTIONS: dict[str, type[BaseModel]] = {
    "server": ServerSettings,
    "encryption": Encryption,
    "databases": Database,
    "gates": Gate,
    "egress": Egress,
    "policies": Policies,
    "limits": Limits,
    "docker": DockerSettings,
    "process": ProcessSettings,
}
