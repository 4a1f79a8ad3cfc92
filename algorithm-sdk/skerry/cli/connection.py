"""How the commands that talk to a server get connected: by a connection file, or by the last log-in.

A log-in keeps a token that expires, never a password. A password is prompted for, or read from standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from skerry.client import UserClient
from skerry.errors import AuthenticationError, ConfigurationError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Login:
    """What is kept of a log-in, in a file of mode 0600."""

    server: str
    path: str
    ca_file: str | None
    private_key_file: str | None
    collaboration: int | None
    refresh_token: str = ""

    def client(self) -> UserClient:
        """Not logged in yet. Raises ConfigurationError for an address that is none."""
        return _client(self.server, self.path, self.ca_file)

    def set_up(self, client: UserClient) -> None:
        client.setup_encryption(self.private_key_file)
        if self.collaboration is not None:
            client.setup_collaboration(self.collaboration)


def connected(command: CommandT) -> CommandT:
    """Gives a command the options that say where to connect to; hand them to ``connect``."""
    option = click.option(
        "--connection",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SKERRY_CONNECTION",
        help="What `skerry dev up --json` printed, as a file. Without it: the last `skerry task login`.",
    )
    return option(
        click.option("--as", "username", help="Which of the users in the connection file; default: the first.")(command)
    )


def connect(connection: Path | None, username: str | None = None, *, encryption: bool = True) -> UserClient:
    """A client that is logged in; without ``encryption`` it sends and reads no payloads, and needs no key file.

    Raises ConfigurationError, AuthenticationError, ServerUnreachable or KeyFileError.
    """
    if connection is not None:
        return _connect_by_file(_read_json(connection), connection, username, encryption=encryption)
    login = _read_login()
    client = login.client()
    try:
        client.resume(login.refresh_token)
    except AuthenticationError as error:
        raise AuthenticationError("Your log-in has expired: `skerry task login` again.", 401) from error
    save(replace(login, refresh_token=client.session.tokens.refresh))
    if encryption:
        login.set_up(client)
    return client


def client_at(address: str, ca_file: Path | None) -> UserClient:
    """A client of the server at an address such as ``https://server.example.org/api``; not logged in.

    Raises ConfigurationError.
    """
    return _client(address, urlsplit(address).path or "/api", None if ca_file is None else str(ca_file))


def _client(address: str, path: str, ca_file: str | None) -> UserClient:
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigurationError(f"{address} has no port that is a number.") from error
    return UserClient(f"{parts.scheme}://{parts.hostname or ''}", port, path, ca_file=ca_file)


def save(login: Login) -> None:
    """Replaces the last log-in."""
    path = _login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(login), file)
    temporary.replace(path)


def forget() -> bool:
    """Removes the last log-in; whether there was one."""
    path = _login_file()
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


def ask_password(username: str) -> str:
    """From the terminal, unseen, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {username}", hide_input=True))
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigurationError("There is no password on standard input.")
    return password


def _connect_by_file(facts: Any, path: Path, username: str | None, *, encryption: bool) -> UserClient:
    try:
        users = {user["username"]: user for user in facts["users"]}
        user = users[username] if username else facts["users"][0]
        keys = {one["id"]: one["private_key_file"] for one in facts["organizations"]}
        key_file = keys[user["organization_id"]] if facts["collaboration"]["encrypted"] else None
        server = facts["server"]
        login = Login(server["url"], server["api_path"], None, key_file, facts["collaboration"]["id"])
        password = user["password"]
    except (KeyError, IndexError, TypeError) as error:
        what = f'has no user "{username}"' if username else "is not what `skerry dev up --json` prints"
        raise ConfigurationError(f"The connection file {path} {what}.") from error
    client = login.client()
    client.authenticate(user["username"], password)
    if encryption:
        login.set_up(client)
    return client


def _read_login() -> Login:
    path = _login_file()
    if not path.exists():
        raise ConfigurationError("You are not logged in: `skerry task login`, or give a file with --connection.")
    try:
        return Login(**_read_json(path))
    except TypeError as error:
        raise ConfigurationError(f"{path} is of another version: `skerry task login` again.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON.") from error


def _login_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "skerry" / "login.json"
