"""The proxy's process: `python -m skerry_proxy --settings-fd N [--key-fd N] [--user UID --group GID]`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from skerry.errors import ConfigurationError, SkerryError
from skerry.keys import Identity
from skerry_proxy.control import ControlServer
from skerry_proxy.office import Office
from skerry_proxy.privileges import drop_privileges
from skerry_proxy.settings import Settings

_LIFELINE = 0
_PIECE = 64 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until standard input ends; the exit code."""
    options = _parse(arguments)
    os.umask(0o077)
    drop_privileges(options.user, options.group)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _serve(options.settings_fd, options.key_fd)
    except (SkerryError, OSError) as error:
        sys.stderr.write(f"The proxy can't start: {error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="skerry_proxy", description="Serves the gates of one node's runs.")
    parser.add_argument("--settings-fd", type=int, required=True, help="descriptor with the settings as JSON")
    parser.add_argument("--key-fd", type=int, help="descriptor of the organization's key file")
    parser.add_argument("--user", type=int, help="become this user id first")
    parser.add_argument("--group", type=int, help="become this group id first")
    return parser.parse_args(arguments)


def _serve(settings_fd: int, key_fd: int | None) -> None:
    settings = Settings.parse(_read(settings_fd))
    identity = None if key_fd is None else Identity.parse(_read(key_fd))
    if settings.encrypted != (identity is not None):
        raise ConfigurationError(
            "The collaboration is encrypted and the node has no key file, or it is not and the node has one: "
            "the node's `encryption` must fit the collaboration."
        )
    office = Office(settings, identity)
    control = ControlServer(settings.control_socket, office)
    control.start()
    _say_ready()
    _hold_lifeline()
    control.close()
    office.close()


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _say_ready() -> None:
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()


def _hold_lifeline() -> None:
    """Returns when the node closes its end, or is gone."""
    while os.read(_LIFELINE, _PIECE):
        pass
