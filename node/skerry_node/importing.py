"""A configuration made from that of a vantage6 4.x node: what carries over, and a note for each key that does not.

Rules without I/O. Secrets come out beside the configuration, each under the name of the file that is to hold it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from skerry.errors import ConfigurationError
from skerry_node import references, variables

API_KEY_FILE = "api-key"
_HTTPS = 443
_TYPES = frozenset({"csv", "parquet", "excel", "sql", "sparql", "omop", "folder", "other"})


@dataclass
class Import:
    """``config`` is ours, ``secrets`` maps names of files to what belongs into them, ``notes`` are sentences."""

    config: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def section(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.config.setdefault(name, {})
        return found

    def note(self, key: str, sentence: str) -> None:
        """On one line and printable, whatever the file holds: notes become comments, and are shown on a terminal."""
        words = "".join(letter if letter.isprintable() else " " for letter in f"{key}: {sentence}").split()
        self.notes.append(" ".join(words))


def convert(source: object, name: str) -> Import:
    """From what the YAML says, for a node of that name. Raises ConfigurationError for what is no such configuration."""
    given = _mapping(source, "the file")
    if set(given) == {"application"}:
        raise ConfigurationError("This is a configuration of vantage6 3 or older; bring it to 4 first.")
    made = Import({"name": name, "server": {}, "api_key_file": API_KEY_FILE, "state_folder": "state"})
    made.config["encryption"] = None
    made.section("policies")["allowed_algorithms"] = []
    for take in _TAKEN:
        take(made, given)
    for key in given:
        if key in _WITHOUT_COUNTERPART:
            made.note(key, _WITHOUT_COUNTERPART[key])
        elif key not in _READ:
            near = difflib.get_close_matches(str(key), _READ, n=1)
            made.note(str(key), f"not a key of vantage6's nodes{f'; was {near[0]} meant?' if near else ''}; left out.")
    return made


# --- taking single keys apart -------------------------------------------------------------------------------


def _mapping(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{key}: there must be keys and values here.")
    return value


def _list(value: object, key: str) -> list[Any]:
    """A single value is a list of one."""
    if value is None:
        return []
    if isinstance(value, dict):
        raise ConfigurationError(f"{key}: there must be a list here.")
    return value if isinstance(value, list) else [value]


def _mappings(value: object, key: str) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{key}.{i}", _mapping(one, f"{key}.{i}")) for i, one in enumerate(_list(value, key))]


def _text(value: object, key: str) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ConfigurationError(f"{key}: there must be a text here.")
    return str(value)


def _flag(given: dict[str, Any], key: str, default: bool) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key}: there must be true or false here.")
    return value


# --- the server and the keys --------------------------------------------------------------------------------


def _take_server(made: Import, given: dict[str, Any]) -> None:
    for key in ("server_url", "api_key"):
        if key not in given:
            raise ConfigurationError(f"{key}: this key is missing; is it the configuration of a vantage6 node?")
    url = _text(given["server_url"], "server_url").rstrip("/")
    port = _text(given.get("port", _HTTPS), "port")
    standard = url.startswith("https://") and port == str(_HTTPS)
    made.config["server"] = {"url": url if standard else f"{url}:{port}"}
    made.config["server"]["api_path"] = _text(given.get("api_path", "/api"), "api_path").rstrip("/")
    made.secrets[API_KEY_FILE] = _text(given["api_key"], "api_key")


def _take_encryption(made: Import, given: dict[str, Any]) -> None:
    encryption = _mapping(given.get("encryption") or {}, "encryption")
    if not _flag(encryption, "enabled", default=False):
        return
    path = _text(encryption.get("private_key"), "encryption.private_key")
    made.config["encryption"] = {"private_key_file": path}
    made.note(
        "encryption.private_key",
        f"the file must have mode 0600. It has a key to encrypt for and none to sign with, which tasks of skerry's "
        f"clients need: skerry key new --upgrade {path}",
    )


# --- databases ------------------------------------------------------------------------------------------------


def _take_databases(made: Import, given: dict[str, Any]) -> None:
    value = given.get("databases")
    if isinstance(value, dict):
        raise ConfigurationError("databases: this is the form of vantage6 3; write a list of label, uri and type.")
    made.config["databases"] = [_database(made, *one) for one in _mappings(value, "databases")]
    if made.config["databases"]:
        made.note("databases", "they are always mounted read-only and never copied, whatever mount_mode says.")


def _database(made: Import, key: str, given: dict[str, Any]) -> dict[str, Any]:
    label, kind = _text(given.get("label"), f"{key}.label"), _text(given.get("type"), f"{key}.type").lower()
    uri = _text(given.get("uri"), f"{key}.uri")
    database: dict[str, Any] = {"label": label, "uri": uri, "type": kind}
    if kind not in _TYPES:
        made.note(f"{key}.type", f'there is no type "{kind}"; choose one of {", ".join(sorted(_TYPES))}.')
    if problem := variables.describe_label_problem(label):
        made.note(f"{key}.label", f"{problem}.")
    if uri.startswith("sqlite:///"):
        database |= {"uri": uri.removeprefix("sqlite:///"), "type": "sqlite"}
    elif "://" in uri:
        database |= _split_password(made, key, uri)
        made.note(
            f"{key}.uri", "the node itself connects to this address: it must be one that the node's machine knows."
        )
    if env := given.get("env"):
        database["env"] = {name: _text(one, f"{key}.env.{name}") for name, one in _mapping(env, f"{key}.env").items()}
    _note_rest(made, key, given, {"label", "uri", "type", "env", "mount_mode"})
    return database


def _split_password(made: Import, key: str, uri: str) -> dict[str, str]:
    """The address without its password, and the file that holds it."""
    try:
        parts = urlsplit(uri)
        password = parts.password
    except ValueError as error:
        # Its own words may hold the password.
        raise ConfigurationError(f"{key}.uri: this is no address.") from error
    if "@" in uri and "@" not in parts.netloc:
        raise ConfigurationError(f"{key}.uri: write special characters of a password as %XX.")
    if password is None:
        return {}
    name = f"database-password-{key.rpartition('.')[2]}"
    made.secrets[name] = unquote(password)
    place = parts.netloc.rpartition("@")[2]
    person = f"{parts.username}@" if parts.username else ""
    return {"uri": urlunsplit(parts._replace(netloc=f"{person}{place}")), "password_file": name}


def _note_rest(made: Import, key: str, given: dict[str, Any], known: Iterable[str]) -> None:
    for name in given.keys() - set(known):
        made.note(f"{key}.{name}", "not a key of vantage6's nodes; left out.")


# --- policies -------------------------------------------------------------------------------------------------


def _take_policies(made: Import, given: dict[str, Any]) -> None:
    policies = _mapping(given.get("policies") or {}, "policies")
    ours = made.section("policies")
    ours["allowed_algorithms"] = _rules(made, policies, gpus=_wants_gpus(made, given))
    for key in ("allowed_users", "allowed_organizations"):
        if key in policies:
            ours[key] = _ids(made, f"policies.{key}", policies[key])
    if "allowed_algorithm_stores" in policies:
        ours["allowed_algorithm_stores"] = _stores(made, policies["allowed_algorithm_stores"])
    pull = _flag(policies, "require_algorithm_pull", default=True)
    made.section("docker")["pull"] = "always" if pull else "missing"
    made.note(
        "policies",
        "tasks that are not signed are refused, and vantage6's clients can't sign: set policies.unsigned_tasks: allow "
        "if such clients are to be served.",
    )
    for key, sentence in _POLICIES_WITHOUT.items():
        if key in policies:
            made.note(f"policies.{key}", sentence)
    read = {"allowed_algorithms", "allowed_users", "allowed_organizations", "allowed_algorithm_stores"}
    _note_rest(made, "policies", policies, read | {"require_algorithm_pull"} | _POLICIES_WITHOUT.keys())


def _rules(made: Import, policies: dict[str, Any], *, gpus: bool) -> list[Any]:
    if "allowed_algorithms" not in policies:
        made.note("policies.allowed_algorithms", "without it vantage6 runs every image; here none: list some.")
    entries = [
        entry
        for value in _list(policies.get("allowed_algorithms"), "policies.allowed_algorithms")
        if (entry := _entry(made, _text(value, "policies.allowed_algorithms"))) is not None
    ]
    return [{"algorithm": entry, "gpus": "all"} for entry in entries] if gpus else entries


def _entry(made: Import, text: str) -> str | None:
    """vantage6 compares patterns with the beginning of a name, skerry with all of it."""
    key = "policies.allowed_algorithms"
    if problem := references.describe_problem(text):
        made.note(key, f"{problem}; left out.")
        return None
    if not references.is_pattern(text):
        return text
    if "|" not in text and re.search(r"(?<!\\)(\$|\.\*)\Z", text):
        return text
    whole = f"(?:{text}).*"
    made.note(
        key,
        f'"{text}" is compared by vantage6 with the beginning of a name only; {whole} means the same here. Is that '
        "what you want?",
    )
    return whole


def _ids(made: Import, key: str, value: object) -> list[int]:
    ids = []
    for one in _list(value, key):
        text = _text(one, key)
        if text.isdecimal():
            ids.append(int(text))
        else:
            made.note(key, f'"{text}" is a name, which only the server vouches for: write the id instead.')
    return ids


def _stores(made: Import, value: object) -> list[str]:
    key, stores = "policies.allowed_algorithm_stores", []
    for one in _list(value, key):
        text = _text(one, key)
        if references.is_pattern(text):
            made.note(key, f'"{text}" is a pattern; write the whole address of each store instead.')
        else:
            stores.append(text)
    made.note(key, "the store is the server's claim and can only narrow what allowed_algorithms admits.")
    return stores


_POLICIES_WITHOUT = {
    "allow_either_whitelist_or_store": "there is no such choice: a task must keep both lists.",
    "allow_basics_algorithm": "there is no such algorithm: set share.columns to let users see the columns of files.",
}


# --- the rest -------------------------------------------------------------------------------------------------


def _take_variables(made: Import, given: dict[str, Any]) -> None:
    kept = {}
    for name, value in _mapping(given.get("algorithm_env") or {}, "algorithm_env").items():
        if problem := variables.describe_problem(str(name)):
            made.note(f"algorithm_env.{name}", f"{problem}; left out.")
        else:
            kept[name] = _text(value, f"algorithm_env.{name}")
    if kept:
        made.config["algorithm_env"] = kept


def _wants_gpus(made: Import, given: dict[str, Any]) -> bool:
    requests = _mapping(given.get("algorithm_device_requests") or {}, "algorithm_device_requests")
    _note_rest(made, "algorithm_device_requests", requests, {"gpu"})
    wanted = _flag(requests, "gpu", default=False)
    if wanted:
        made.note("algorithm_device_requests", "each listed algorithm gets all GPUs; say it in fewer rules.")
    return wanted


def _take_registries(made: Import, given: dict[str, Any]) -> None:
    logins = []
    for number, (key, one) in enumerate(_mappings(given.get("docker_registries"), "docker_registries"), 1):
        name = f"registry-password-{number}"
        host = _text(one.get("registry"), f"{key}.registry").rpartition("://")[2].partition("/")[0]
        made.secrets[name] = _text(one.get("password"), f"{key}.password")
        user = _text(one.get("username"), f"{key}.username")
        logins.append({"registry": host, "username": user, "password_file": name})
        _note_rest(made, key, one, {"registry", "username", "password"})
    if logins:
        made.section("docker")["registries"] = logins


def _take_sharing(made: Import, given: dict[str, Any]) -> None:
    made.config["share"] = {
        "logs": _flag(given, "share_algorithm_logs", default=True),
        "configuration": _flag(given, "share_config", default=True),
    }


def _take_whitelist(made: Import, given: dict[str, Any]) -> None:
    """vantage6 allows each port at each host; a name that begins with a dot means all names below it."""
    whitelist = _mapping(given.get("whitelist") or {}, "whitelist")
    _note_rest(made, "whitelist", whitelist, {"domains", "ips", "ports"})
    ports = [_text(port, "whitelist.ports") for port in _list(whitelist.get("ports"), "whitelist.ports")] or ["443"]
    allowed = []
    for kind in ("domains", "ips"):
        for one in _list(whitelist.get(kind), f"whitelist.{kind}"):
            host = _text(one, f"whitelist.{kind}")
            if host.startswith((".", "*")) or "/" in host:
                made.note(f"whitelist.{kind}", f'"{host}" means many hosts; write each that is needed as host:port.')
            else:
                allowed += [f"{host}:{port}" for port in ports]
    if allowed:
        made.config["egress"] = {"allowed": allowed}
        made.note("whitelist", "became egress: HTTPS by CONNECT to exactly these; name there who needs it.")


_TAKEN: tuple[Callable[[Import, dict[str, Any]], None], ...] = (
    _take_server,
    _take_encryption,
    _take_databases,
    _take_policies,
    _take_variables,
    _take_registries,
    _take_sharing,
    _take_whitelist,
)

_WITHOUT_COUNTERPART = {
    "task_dir": "runs have their folders in state_folder, in memory where the node may mount; nothing is taken over.",
    "node_extra_env": "set variables of the node's own process where you start it; server.ca_file names a CA bundle.",
    "node_extra_mounts": "there is no container of the node's to mount into unless you start one: docker/compose.yaml.",
    "node_extra_hosts": "names are resolved as on the node's machine: write them into its hosts file.",
    "images": "skerry needs no images of helpers but docker.holder_image.",
    "vpn_subnet": "addresses of a VPN are not chosen by the node.",
    "ssh-tunnels": "let your system keep the tunnel (ssh -N -L, as a service) and name its near end as destination of "
    "an entry in gates, or in the uri of a database.",
    "docker_services": "name the service as host:port, as the node's machine reaches it, as destination of an entry in "
    "gates.",
    "run_context_file": "algorithms are told everything by the variables of the container contract.",
    "prometheus": "the node tells Prometheus its own metrics, on loopback only: set metrics, such as {port: 9465}.",
    "logging": "the node logs to its standard error; keep that where you keep the logs of services, and set log_level "
    "and log_format.",
    "debug": "there is no such switch.",
}

_READ = {
    *("api_key", "server_url", "port", "api_path", "databases", "encryption", "policies", "algorithm_env"),
    *("algorithm_device_requests", "docker_registries", "share_config", "share_algorithm_logs", "whitelist"),
    *_WITHOUT_COUNTERPART,
}
