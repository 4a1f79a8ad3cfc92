"""How a node comes by its key: by an invitation when it joins, and later by a new key in place of the old one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skerry.errors import AuthenticationError, ConfigurationError, Conflict
from skerry.invitations import Invitation
from skerry.keys import Identity, write_secret
from skerry_node.config import Config, ServerSettings, server_problems
from skerry_node.orders import Welcome
from skerry_node.server import Server
from skerry_node.template import Entries, write_template

_API_KEY, _KEY, _CA = "api-key", "key.pem", "server-ca.pem"


@dataclass(frozen=True, slots=True)
class Joined:
    """What was made. ``fingerprint`` is of the organization's keys; None where there are none to compare."""

    config: Path
    welcome: Welcome
    fingerprint: str | None
    advice: str | None


def join(invitation: Invitation, folder: Path, key_file: Path | None) -> Joined:
    """Makes the node's folder, trades the invitation's secret for the API key, and registers the organization's keys.

    All that can fail without the server is done before the secret is used up. Raises SkerryError.
    """
    invitation.check_age(datetime.now(UTC))
    identity = None if key_file is None else Identity.load(key_file)
    settings = _prepare(invitation, folder)
    server = Server(settings, lambda: "")
    if server.server_id() != invitation.server_id:
        raise ConfigurationError("The server at this address is not the one that the invitation is from.")
    try:
        welcome = server.join(invitation.secret)
    except AuthenticationError as error:
        raise ConfigurationError("The server does not take this invitation: ask for a new one.") from error
    finally:
        server.close()
    write_secret(folder / _API_KEY, f"{welcome.api_key}\n".encode())
    config = write_template(folder, _entries(invitation, welcome))
    if not welcome.collaboration.encrypted:
        return Joined(config, welcome, None, None)
    return _set_up_keys(settings, folder, config, welcome, identity)


def rotate_api_key(config: Config) -> None:
    """Replaces the node's API key, at the server and in its file; runs under way and a running node go on.

    The file is replaced first: the old key is dead once the new one is used. Raises ServerUnreachable or ServerError.
    """
    server = Server(config.server, config.api_key)
    try:
        draft = config.api_key_file.with_name(f"{config.api_key_file.name}.new")
        draft.unlink(missing_ok=True)
        write_secret(draft, f"{server.rotate_key()}\n".encode())
        owner = config.api_key_file.stat()
        os.chown(draft, owner.st_uid, owner.st_gid)
        draft.replace(config.api_key_file)
        server.log_in()
    finally:
        server.close()


def _prepare(invitation: Invitation, folder: Path) -> ServerSettings:
    """The folder, with the server's authority in it. Raises ConfigurationError."""
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be made: {error.strerror}.") from error
    for name in (_API_KEY, "node.yaml"):
        if (folder / name).exists():
            raise ConfigurationError(f"{folder / name} is there already: join with a new folder.")
    ca_file = folder / _CA if invitation.ca else None
    if ca_file is not None:
        ca_file.write_text(invitation.ca)
    settings = ServerSettings(url=invitation.url, api_path=invitation.api_path, ca_file=ca_file)
    for problem in server_problems(settings, development=False):
        raise ConfigurationError(f"The invitation can't be used: {problem}")
    return settings


def _entries(invitation: Invitation, welcome: Welcome) -> Entries:
    return Entries(
        name=welcome.name,
        url=invitation.url,
        api_path=invitation.api_path,
        ca_file=_CA if invitation.ca else None,
        key_file=_KEY if welcome.collaboration.encrypted else None,
    )


def _set_up_keys(
    settings: ServerSettings, folder: Path, config: Path, welcome: Welcome, identity: Identity | None
) -> Joined:
    if identity is None and welcome.organization.keys:
        advice = f"Your organization has keys already: put its key file at {folder / _KEY} (mode 600)."
        return Joined(config, welcome, None, advice)
    identity = identity or Identity.generate()
    identity.save(folder / _KEY)
    server = Server(settings, lambda: welcome.api_key)
    try:
        server.register_keys(welcome.organization.id, identity.organization_keys(welcome.organization.id))
    except Conflict as error:
        raise ConfigurationError(
            f"The node has joined, but its organization has registered other keys than those in {folder / _KEY}: "
            "put the organization's key file there."
        ) from error
    finally:
        server.close()
    return Joined(config, welcome, identity.own_keys(welcome.organization.id).fingerprint, None)
