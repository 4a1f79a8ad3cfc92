"""WireGuard in a program of its own, ``wireguard-go``, spoken to over its socket."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skerry_node.launchers.launcher import LauncherError
from skerry_node.wireguard import KEEPALIVE_SECONDS, Change, Known, Remote, carry_over, started

log = logging.getLogger(__name__)

PROGRAM = "wireguard-go"

_SOCKETS = Path("/var/run/wireguard")
_OURS = re.compile(r"sk[0-9a-f]{12}\.sock")
_FRESH_SECONDS = 60.0
_PATIENCE = 15.0
_GLANCE = 0.005
_PIECE = 65536
_LARGEST = 1 << 20
_PEER = struct.Struct("3i")


class GoInterface:
    """A running ``wireguard-go`` (see ``wireguard.Interface``)."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], private: X25519PrivateKey) -> None:
        self._name = name
        self._process = process
        self._private = private
        self._known = Known()

    @property
    def public_key(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self, port: int) -> None:
        """Waits for the program first."""
        self._await_socket()
        self._set([f"private_key={self._private.private_bytes_raw().hex()}", f"listen_port={port}"])

    def wait(self) -> None:
        self._process.wait()

    def move(self, namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, mtu: int) -> None:
        carry_over(self._name, namespace, address, subnet, mtu)

    def set_peers(self, remotes: Iterable[Remote]) -> None:
        gone, changes = self._known.compare(remotes)
        lines = [line for key in gone for line in (f"public_key={key.hex()}", "remove=true")]
        self._set([*lines, *(line for change in changes for line in _lines(change))])
        self._known.take(gone, changes)

    def has_met(self, public_key: bytes) -> bool:
        key = ""
        for line in self._ask("get=1\n").splitlines():
            name, _, value = line.partition("=")
            key = value if name == "public_key" else key
            if key == public_key.hex() and name == "last_handshake_time_sec":
                return value != "0"
        return False

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _socket_of(self._name).unlink(missing_ok=True)

    def _set(self, lines: Iterable[str]) -> None:
        answer = self._ask("\n".join(["set=1", *lines]) + "\n")
        if "errno=0" not in answer.splitlines():
            raise LauncherError(f"{PROGRAM} does not take its configuration ({answer.strip()}).")

    def _ask(self, request: str) -> str:
        answer = b""
        try:
            with _connect(self._name) as connection:
                connection.sendall(f"{request}\n".encode())
                while not answer.endswith(b"\n\n") and len(answer) < _LARGEST:
                    piece = connection.recv(_PIECE)
                    if not piece:
                        break
                    answer += piece
        except OSError as error:
            raise LauncherError(f"{PROGRAM} does not answer ({error.strerror}).") from error
        return answer.decode()

    def _await_socket(self) -> None:
        """Until somebody listens there: for a moment there is only the file."""
        end = time.monotonic() + _PATIENCE
        while not _listens(self._name):
            if self._process.poll() is not None or time.monotonic() > end:
                raise LauncherError(f"{PROGRAM} did not make an interface: is there a /dev/net/tun, and is it allowed?")
            time.sleep(_GLANCE)


class GoDriver:
    """``wireguard-go`` (see ``wireguard.Driver``)."""

    name = PROGRAM

    def missing(self) -> str | None:
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not installed (apt-get install wireguard-go)"
        if not Path("/dev/net/tun").is_char_device():
            return "there is no /dev/net/tun (modprobe tun; in a container: --device /dev/net/tun)"
        return None

    def make(self, name: str, port: int) -> GoInterface:
        self.remove(name)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "error"}
        try:
            process = subprocess.Popen(
                [PROGRAM, "-f", name],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise LauncherError(f"{PROGRAM} can't be started ({error.strerror}).") from error
        return started(GoInterface(name, process, X25519PrivateKey.generate()), port)

    def remove(self, name: str) -> None:
        """Ends the program of this name that an earlier node has left, whoever started it, and its interface."""
        with contextlib.suppress(OSError), _connect(name) as connection:
            pid, _, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            _end(pid)
        _socket_of(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes the sockets of programs that were killed."""
        for path in _SOCKETS.glob("sk*.sock"):
            if _OURS.fullmatch(path.name) and _is_stale(path):
                log.info("%s is left of a run that is no more", path)
                path.unlink(missing_ok=True)


def _end(pid: int) -> None:
    """Until it has gone: its interface does so no sooner. Raises OSError."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        gone = select.poll()
        gone.register(handle, select.POLLIN)
        gone.poll(1000 * _PATIENCE)
    finally:
        os.close(handle)


def _listens(name: str) -> bool:
    try:
        with _connect(name):
            return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise LauncherError(f"{PROGRAM} does not answer ({error.strerror}).") from error


def _is_stale(path: Path) -> bool:
    """Nobody listens, and not because the program has only just begun."""
    try:
        if time.time() - path.stat().st_mtime < _FRESH_SECONDS:
            return False
        with _connect(path.stem):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def _lines(change: Change) -> Iterator[str]:
    remote = change.remote
    yield f"public_key={remote.public_key.hex()}"
    yield "replace_allowed_ips=true"
    if remote.address is not None:
        yield f"allowed_ip={remote.address}/32"
    if remote.secret is not None:
        yield f"preshared_key={remote.secret.hex()}"
    if change.moves and remote.endpoint is not None:
        yield f"endpoint={_join(remote.endpoint)}"
    if change.calls:
        yield f"persistent_keepalive_interval={KEEPALIVE_SECONDS}"


@contextlib.contextmanager
def _connect(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(_socket_of(name)))
        yield connection


def _socket_of(name: str) -> Path:
    return _SOCKETS / f"{name}.sock"


def _join(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
