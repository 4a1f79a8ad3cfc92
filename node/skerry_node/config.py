"""A node's configuration: one YAML file, checked as a whole before anything is started."""

from __future__ import annotations

import base64
import difflib
import ipaddress
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from skerry import contract
from skerry.errors import ConfigurationError
from skerry.peering import parse_endpoint
from skerry_node.policies import LEAST_PROCESSES, Entries, OnlyFor, Policies, Relaxation, Rule
from skerry_node.references import DOCKER_HUB
from skerry_node.sections import File, Section, Size
from skerry_node.services import Address
from skerry_node.variables import describe_label_problem, describe_problem, name_variables
from skerry_proxy.destinations import Destination
from skerry_proxy.relays import MOST_RELAYS

MAX_SOCKET_PATH = 107
"""sun_path of unix(7) without its closing zero."""

_SERVICES = frozenset({"sql", "sparql", "omop"})
_LABEL = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
_REGISTRY = r"^[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?(:[0-9]{1,5})?$"
_KEY_BYTES = 32
_PARAMETER = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"


class ServerSettings(Section):
    url: str
    api_path: str = "/api"
    ca_file: File | None = None
    https_proxy: str | None = None


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
    ``<LABEL>_DB_PARAM_<KEY>``. ``only_for``: which algorithms, functions, users and organizations it is for, of those
    that the policies admit.
    """

    label: str = Field(pattern=_LABEL)
    uri: Annotated[File | Address, BeforeValidator(parse_uri)]
    type: Literal["csv", "parquet", "excel", "sqlite", "sql", "sparql", "omop", "folder", "other"]
    password_file: File | None = None
    env: dict[Annotated[str, Field(pattern=_PARAMETER)], str] = Field(default_factory=dict)
    only_for: OnlyFor = OnlyFor()


class Gate(Section):
    """A service of the owner's that algorithms reach at an address told as ``<NAME>_GATE_ADDRESS``.

    ``algorithms``: as in a rule of the policies; left out, it is open to all that are admitted.
    """

    name: str = Field(pattern=_LABEL)
    destination: DestinationText
    algorithms: Entries | None = None


class Egress(Section):
    """Hosts and ports that algorithms reach by CONNECT. ``algorithms`` as in a gate."""

    allowed: Annotated[tuple[DestinationText, ...], Field(strict=False, min_length=1)]
    algorithms: Entries | None = None


class Share(Section):
    """What leaves the node beside results: what algorithms write, this configuration, the columns' names of files."""

    logs: bool = True
    configuration: bool = True
    columns: bool = False


class Limits(Section):
    """Bounds of each run; sizes in bytes.

    ``input`` and ``output`` bound what it is given and its result, ``temporary`` /tmp and the job's folder. Where both
    together may be larger than ``in_memory``, they lie on the disk.
    """

    parallel_runs: int = Field(default=4, ge=1, le=64)
    memory: Size = 2 << 30
    cpus: float = Field(default=1.0, ge=0.05, le=1024)
    processes: int = Field(default=256, ge=LEAST_PROCESSES, le=32768)
    input: Size = 256 << 20
    output: Size = 256 << 20
    in_memory: Size = 1 << 30
    temporary: Size = 128 << 20
    log: Size = 1 << 20
    seconds: float = Field(default=86400.0, ge=1)


class Registry(Section):
    """Who a node is to a registry (``host`` or ``host:port``; docker.io is Docker Hub) when it pulls from there."""

    registry: str = Field(pattern=_REGISTRY)
    username: str = Field(min_length=1, max_length=255)
    password_file: File


class KeepImages(Section):
    """How long, and how much (bytes), a node keeps of the images that it pulled itself; None for no bound."""

    days: float | None = Field(default=None, ge=0)
    size: Size | None = None


class DockerSettings(Section):
    """``host`` None is the engine that DOCKER_HOST names, or the one at the standard socket.

    ``gate`` unix: algorithms are told of the gate's unix socket, for a runtime that shares no loopback.

    ``runtime`` runsc is gVisor: no run is started under another one. ``preflight_seconds`` is how often the sandbox is
    tried from inside, with ``probe_image``.

    ``pull``: ``always`` runs nothing that the registry does not confirm, ``never`` only what is on the machine.
    """

    host: str | None = None
    holder_image: str = "skerry/holder"
    holder_pool: int = Field(default=2, ge=0, le=64)
    pull: Literal["missing", "always", "never"] = "missing"
    gate: Literal["tcp", "unix"] = "tcp"
    runtime: Literal["runc", "runsc"] = "runc"
    probe_image: str = "skerry/probe"
    preflight_seconds: float = Field(default=3600.0, ge=10)
    keep_images: KeepImages = KeepImages()
    registries: Annotated[tuple[Registry, ...], Field(strict=False)] = ()


_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def parse_ports(value: object) -> object:
    """From ``first-last``; raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _PORT_RANGE.fullmatch(value)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < first <= last < 1 << 16:
        raise ValueError("write the ports as first-last, such as 51820-51883")
    return first, last


def parse_host(value: object) -> object:
    """An address of a machine, which others can send to; raises ValueError."""
    if value is None:
        return None
    address = ipaddress.ip_address(str(value))
    if address.is_multicast or address.is_unspecified:
        raise ValueError("name the address at which other nodes reach this machine")
    return str(address)


def parse_relay(value: object) -> object:
    """From ``address:port``; raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return parse_endpoint(value)
    except ValueError as error:
        raise ValueError("write the relay's address and port, such as 192.0.2.9:51819") from error


def parse_key(text: str) -> bytes:
    """A key of WireGuard from base64; raises ValueError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("this is no key: copy what skerry relay prints")
    return key


def check_key(text: str) -> str:
    """The same text; raises ValueError."""
    parse_key(text)
    return text


class RelaySettings(Section):
    """The relay by which this node's runs are reached, as ``skerry relay`` tells it."""

    endpoint: Annotated[tuple[str, int], BeforeValidator(parse_relay)]
    public_key: Annotated[str, AfterValidator(check_key)]
    secret_file: File

    def secret(self) -> bytes:
        """Raises ConfigurationError."""
        try:
            return parse_key(self.secret_file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"vpn.relay.secret_file: {self.secret_file}: {error}.") from error


class VpnSettings(Section):
    """Where runs that talk to their job's other runs are reached, where ``policies.vpn`` allows it.

    ``endpoint``: this machine's address as the other nodes reach it, None behind NAT: then it calls them, and is
    called by ``relay`` if there is one. ``ports``: UDP, one for each run at a time. ``mtu``: 80 bytes below what the
    way between the nodes carries.
    """

    endpoint: Annotated[str | None, BeforeValidator(parse_host)] = None
    ports: Annotated[tuple[int, int], BeforeValidator(parse_ports)] = (51820, 51883)
    mtu: int = Field(default=1420, ge=1280, le=8920)
    relay: RelaySettings | None = None

    @property
    def port_range(self) -> range:
        first, last = self.ports
        return range(first, last + 1)


class ProcessSettings(Section):
    registry: File


class Metrics(Section):
    """Where Prometheus finds what the node tells, on loopback only: whoever reaches it may read it."""

    port: int = Field(default=9465, ge=1, le=65_535)


class Config(Section):
    """``uid_base`` None: a range of a thousand users that is this installation's own.

    ``algorithm_env`` are variables for every algorithm.
    """

    name: str = Field(pattern=r"^[^\s\x00-\x1f][^\x00-\x1f]{0,127}$")
    server: ServerSettings
    api_key_file: File
    state_folder: File
    encryption: Encryption | None
    databases: Annotated[tuple[Database, ...], Field(strict=False)] = ()
    gates: Annotated[tuple[Gate, ...], Field(strict=False)] = ()
    egress: Egress | None = None
    algorithm_env: dict[str, str] = Field(default_factory=dict)
    policies: Policies = Policies()
    share: Share = Share()
    limits: Limits = Limits()
    launcher: Literal["docker", "process"] = "docker"
    docker: DockerSettings = DockerSettings()
    vpn: VpnSettings = VpnSettings()
    process: ProcessSettings | None = None
    proxy_uid: int = Field(default=64200, ge=1, lt=1 << 31)
    uid_base: int | None = Field(default=None, ge=1000, lt=(1 << 31) - 1000)
    data_group: int | None = Field(default=None, ge=1, lt=1 << 31)
    development: bool = False
    metrics: Metrics | None = None
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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
        config = _absolute(Config.model_validate(read_yaml(path)), path.parent)
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors()]
    else:
        problems = list(_problems(config))
    if problems:
        raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a file. Raises ConfigurationError."""
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
    server, encryption, process, docker = config.server, config.encryption, config.process, config.docker
    registries = tuple(r.model_copy(update={"password_file": folder / r.password_file}) for r in docker.registries)
    changes: dict[str, Any] = {
        "api_key_file": folder / config.api_key_file,
        "state_folder": folder / config.state_folder,
        "databases": tuple(_absolute_database(database, folder) for database in config.databases),
        "docker": docker.model_copy(update={"registries": registries}),
        "server": server.model_copy(update={"ca_file": folder / server.ca_file if server.ca_file else None}),
    }
    if encryption is not None:
        path = folder / encryption.private_key_file
        changes["encryption"] = encryption.model_copy(update={"private_key_file": path})
    if config.vpn.relay is not None:
        relay = config.vpn.relay.model_copy(update={"secret_file": folder / config.vpn.relay.secret_file})
        changes["vpn"] = config.vpn.model_copy(update={"relay": relay})
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
    yield from server_problems(config.server, development=config.development)
    yield from _secret_problems("api_key_file", config.api_key_file)
    if config.encryption is not None:
        yield from _secret_problems("encryption.private_key_file", config.encryption.private_key_file)
    yield from _registry_problems(config.docker.registries)
    yield from _database_problems(config)
    yield from _relay_problems(config)
    yield from _variable_problems(config)
    yield from _vpn_problems(config)
    yield from _launcher_problems(config)
    if config.policies.allowed_algorithms is None and not config.development:
        yield "policies.allowed_algorithms: say which images may run here (a single .* allows every image)."
    if len(str(config.control_socket)) > MAX_SOCKET_PATH:
        yield f"state_folder: {config.state_folder} is too long a path for a socket; choose a shorter one."


def server_problems(server: ServerSettings, *, development: bool) -> Iterator[str]:
    """What is wrong with the address of a server, a sentence a problem."""
    url = urlsplit(server.url)
    if url.scheme not in {"http", "https"} or not url.hostname or url.path not in {"", "/"}:
        yield "server.url: write it as https://host or https://host:port; the path belongs into server.api_path."
    elif url.scheme == "http" and not development and not _is_loopback(url.hostname):
        yield "server.url: use https; http is for a server on this very machine."
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", server.api_path):
        yield "server.api_path: write it as /api, or leave it empty."
    if server.ca_file is not None and not server.ca_file.is_file():
        yield f"server.ca_file: there is no file {server.ca_file}."
    if server.https_proxy is not None:
        yield from _https_proxy_problems(server)


def _https_proxy_problems(server: ServerSettings) -> Iterator[str]:
    try:
        way = urlsplit(str(server.https_proxy))
        well_formed = way.scheme == "http" and bool(way.hostname) and bool(way.port) and way.path in {"", "/"}
    except ValueError:
        well_formed = False
    if not well_formed or way.username is not None or way.query or way.fragment:
        yield "server.https_proxy: write it as http://host:port, without a user or a password."
    elif not server.url.startswith("https://"):
        yield "server.https_proxy: only a server with https is reached through a proxy: others would read along."


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


def _registry_problems(registries: Sequence[Registry]) -> Iterator[str]:
    for number, registry in enumerate(registries):
        yield from _secret_problems(f"docker.registries.{number}.password_file", registry.password_file)
        if registry.registry in {one.registry for one in registries[:number]}:
            yield f"docker.registries.{number}.registry: {registry.registry} is there twice."
        if registry.registry != DOCKER_HUB and registry.registry.endswith(f".{DOCKER_HUB}"):
            yield f"docker.registries.{number}.registry: Docker Hub is written {DOCKER_HUB} here."


def _database_problems(config: Config) -> Iterator[str]:
    seen: set[str] = set()
    for number, database in enumerate(config.databases):
        key = f"databases.{number}"
        if database.label.upper() in seen:
            yield f'{key}.label: "{database.label}" is there twice; upper and lower case make no difference.'
        seen.add(database.label.upper())
        if problem := describe_label_problem(database.label):
            yield f"{key}.label: {problem}."
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
    for name, value in config.algorithm_env.items():
        problem = describe_problem(name) or ("a value has no zero byte" if "\0" in value else None)
        if problem is not None:
            yield f"algorithm_env.{name}: {problem}."
    taken: set[str] = set()
    for key, names in _named(config):
        for name in names:
            if name in taken:
                yield f"{key}: its variable {name} is there twice; choose another name, label or key of env."
            taken.add(name)


def _named(config: Config) -> Iterator[tuple[str, list[str]]]:
    """The variables of each database and gate."""
    for number, database in enumerate(config.databases):
        yield f"databases.{number}", name_variables(database.label, database.env)
    for number, gate in enumerate(config.gates):
        yield f"gates.{number}", [contract.gate_variable(gate.name)]


def _vpn_problems(config: Config) -> Iterator[str]:
    if config.policies.vpn != "allow":
        return
    if config.launcher == "process":
        yield "policies.vpn: plain processes have no namespaces of their own, so they get no VPN; refuse it."
    if config.encryption is None:
        yield "policies.vpn: peers are told apart by their organizations' keys, so encryption: null has no VPN."
    yield from _relay_of_vpn_problems(config.vpn)


def _relay_of_vpn_problems(settings: VpnSettings) -> Iterator[str]:
    if settings.relay is None:
        return
    if settings.endpoint is not None:
        yield "vpn.relay: where vpn.endpoint says where this machine is reached, no relay is needed; leave one out."
    problems = list(_secret_problems("vpn.relay.secret_file", settings.relay.secret_file))
    yield from problems or _relay_secret_problems(settings.relay)


def _relay_secret_problems(relay: RelaySettings) -> Iterator[str]:
    try:
        relay.secret()
    except ConfigurationError as error:
        yield str(error)


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
    "allowed_algorithms": Rule,
    "only_for": OnlyFor,
    "share": Share,
    "relaxations": Relaxation,
    "limits": Limits,
    "docker": DockerSettings,
    "registries": Registry,
    "keep_images": KeepImages,
    "vpn": VpnSettings,
    "relay": RelaySettings,
    "process": ProcessSettings,
}
