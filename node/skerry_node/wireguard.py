"""One WireGuard interface of one run: made in the node's own namespace, where its UDP socket stays, and moved.

The container that ends up beside the interface has no capability, no device and no key.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import inside

log = logging.getLogger(__name__)

PROGRAM = "wireguard-go"
INSIDE = "wg0"
"""The interface's name where the algorithm sees it."""

_SOCKETS = Path("/var/run/wireguard")
_KEEPALIVE = 25
_PATIENCE = 15.0
_GLANCE = 0.005
_PIECE = 65536
_LARGEST = 1 << 20
_PEER = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Remote:
    """Another run: WireGuard's public key, where to send (None: it calls first), and its one address."""

    public_key: bytes
    endpoint: tuple[str, int] | None
    address: ipaddress.IPv4Address


class Interface:
    """A running ``wireguard-go`` and its key, which nobody else knows. Its methods raise LauncherError."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], private: X25519PrivateKey) -> None:
        self._name = name
        self._process = process
        self._private = private

    @classmethod
    def make(cls, name: str, port: int) -> Interface:
        """A fresh interface with a fresh key, reached at this UDP port. What an earlier node left of it goes."""
        remove(name)
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
        made = cls(name, process, X25519PrivateKey.generate())
        try:
            made._await_socket()
            made._set([f"private_key={made._private.private_bytes_raw().hex()}", f"listen_port={port}"])
        except BaseException:
            made.close()
            raise
        return made

    @property
    def public_key(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> None:
        """Until the program has ended."""
        self._process.wait()

    def move(self, namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, mtu: int) -> None:
        """Into a network namespace (a descriptor), where it gets this address and the way to its subnet."""
        from pyroute2 import IPRoute  # noqa: PLC0415 - most nodes have no VPN, and it takes a while to import
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

        def settle() -> None:
            with IPRoute() as there:
                [index] = there.link_lookup(ifname=self._name)
                there.link("set", index=index, ifname=INSIDE, mtu=mtu)
                there.addr("add", index=index, address=str(address), prefixlen=32)
                there.link("set", index=index, state="up")
                there.route("add", dst=str(subnet), oif=index, prefsrc=str(address))

        try:
            with IPRoute() as here:
                [index] = here.link_lookup(ifname=self._name)
                here.link("set", index=index, net_ns_fd=namespace)
            inside(namespace, settle)
        except (OSError, NetlinkError, ValueError) as error:
            raise LauncherError(f"A WireGuard interface can't be moved into a run's namespace: {error}") from error

    def set_peers(self, remotes: Iterable[Remote]) -> None:
        """These and no others. One that stays keeps its session, and the endpoint at which it was last heard."""
        wanted = {remote.public_key: remote for remote in remotes}
        lines = []
        for key in self._keys() - wanted.keys():
            lines += [f"public_key={key.hex()}", "remove=true"]
        for key, remote in wanted.items():
            lines += [f"public_key={key.hex()}", "replace_allowed_ips=true", f"allowed_ip={remote.address}/32"]
            if remote.endpoint is not None:
                lines += [f"endpoint={_join(remote.endpoint)}", f"persistent_keepalive_interval={_KEEPALIVE}"]
        self._set(lines)

    def close(self) -> None:
        """The interface and its key are gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _socket_of(self._name).unlink(missing_ok=True)

    def _keys(self) -> set[bytes]:
        pairs = (line.partition("=") for line in self._ask("get=1\n").splitlines())
        return {bytes.fromhex(value) for name, _, value in pairs if name == "public_key"}

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
        end = time.monotonic() + _PATIENCE
        while not _socket_of(self._name).exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise LauncherError(f"{PROGRAM} did not make an interface: is there a /dev/net/tun, and is it allowed?")
            time.sleep(_GLANCE)


def remove(name: str) -> None:
    """Ends the ``wireguard-go`` of this name that an earlier node has left, whoever started it."""
    try:
        with _connect(name) as connection:
            pid, _, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            os.kill(pid, signal.SIGKILL)
    except (OSError, ProcessLookupError):
        pass
    _socket_of(name).unlink(missing_ok=True)


def missing() -> str | None:
    """Why this machine can't make such interfaces, in one sentence; None when it can."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed (apt-get install wireguard-go)"
    if not Path("/dev/net/tun").is_char_device():
        return "there is no /dev/net/tun (modprobe tun; in a container: --device /dev/net/tun)"
    return None


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
