"""``skerry relay``: its keys, its socket, and what the nodes' owners are to write."""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skerry.errors import ConfigurationError
from skerry.keys import write_secret
from skerry.peering import parse_endpoint
from skerry_server.relay.handshake import KEY_BYTES, Responder
from skerry_server.relay.switch import Address, Switch

log = logging.getLogger(__name__)

_KEY, _SECRET = "relay.key", "relay-secret"
# a relay is there for others
_ANY = {False: "0.0.0.0", True: "::"}  # noqa: S104 # nosec B104
_LARGEST_PACKET = 1 << 16
_BUFFER_BYTES = 4 << 20
_GLANCE_SECONDS = 10.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--address",
    metavar="ADDRESS:PORT",
    required=True,
    help="Where the nodes reach this machine by UDP; IPv6 in brackets.",
)
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Where to listen, if that is another: behind a forwarded port.  [default: any address of this port]",
)
def relay(folder: Path, address: str, listen: str | None) -> None:
    """Hands on the packets of runs that talk to each other to nodes that nobody can call, as behind NAT.

    It can't read them: they are WireGuard's, end to end between the runs. FOLDER holds its key and the secret that
    admits nodes, both made at the first start. It runs until it is stopped.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    reached = _parse(address, "--address")
    where = _parse(listen, "--listen") if listen else (_ANY[":" in reached[0]], reached[1])
    private, secret = open_keys(folder)
    responder = Responder(private, secret)
    with _bind(where) as line:
        click.echo(_tell(address, responder.me.public_key, folder))
        carry(line, Switch(responder), time.monotonic)


def open_keys(folder: Path) -> tuple[X25519PrivateKey, bytes]:
    """Its own key and the nodes' secret, made where they are missing. Raises ConfigurationError or KeyFileError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (_KEY, _SECRET):
        if not (folder / name).exists():
            write_secret(folder / name, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
    return X25519PrivateKey.from_private_bytes(_read_key(folder / _KEY)), _read_key(folder / _SECRET)


def carry(line: socket.socket, switch: Switch, clock: Callable[[], float]) -> None:
    """Until the socket is closed."""
    line.settimeout(_GLANCE_SECONDS)
    looked = clock()
    while True:
        handed: tuple[bytes, Address] | None = None
        try:
            packet, source = line.recvfrom(_LARGEST_PACKET)
            handed = switch.take(packet, source[:2], clock())
        except TimeoutError:
            pass
        except ConnectionError:  # what an earlier packet met
            continue
        if handed is not None:
            with contextlib.suppress(OSError):  # no way there: as if it had been lost
                line.sendto(*handed)
        if clock() - looked > _GLANCE_SECONDS:
            looked = clock()
            switch.forget(looked)


def _parse(text: str, option: str) -> Address:
    try:
        found = parse_endpoint(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: write an address and a port, such as 192.0.2.9:51819.") from error
    assert found is not None  # noqa: S101 - for mypy: only None gives None
    return found


def _bind(where: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    line = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            line.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        line.bind(where)
    except OSError as error:
        line.close()
        raise ConfigurationError(f"UDP {where[0]} port {where[1]} can't be used ({error.strerror}).") from error
    return line


def _read_key(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path} is open to other users of this machine; close it with chmod 600 {path}")
        key = base64.b64decode(path.read_bytes(), validate=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read as a key ({error}).") from error
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{path} is not a key: remove it, and another is made.")
    return key


def _tell(address: str, public_key: bytes, folder: Path) -> str:
    shown = base64.b64encode(public_key).decode()
    return (
        f"relay: at UDP {address}. Nodes that others can't call write, with a copy of {folder / _SECRET} (chmod 600):\n"
        f"vpn:\n  relay: {{endpoint: '{address}', public_key: {shown}, secret_file: {_SECRET}}}"
    )
