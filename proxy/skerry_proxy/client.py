"""The node's side: starting a proxy, and asking it (native protocol, section 5)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skerry.errors import ConfigurationError, SkerryError
from skerry.peering import Peer
from skerry.trust import Sender
from skerry_proxy.frames import receive_frame, send_frame
from skerry_proxy.relays import Lead

_STOP_SECONDS = 5.0


class ProxyError(SkerryError):
    """The proxy could not do what it was asked.

    ``kind`` is ``refused`` (the run ends as not allowed), ``invalid`` (the run ends as failed), ``fenced`` (the run is
    no longer this node's), ``unreachable`` (try again later, with a fresh token) or ``internal``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """What admission needs to know of a run, and what the node keeps to resume it. ``databases`` are labels."""

    sender: Sender
    method: str
    databases: tuple[str, ...]
    image: str
    resume: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sealed:
    """``size``: bytes of the sealed result, 0 when there is none; ``log``: as it travels to the server."""

    size: int
    log: str


@dataclass(frozen=True, slots=True)
class GateUse:
    """How often a run made which call, how often it was refused with which status, and the tasks that it made.

    ``relays``: what went through each, its name and counts.
    """

    calls: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    children: tuple[int, ...] = ()
    relays: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """The other runs of the job that are believed, and why others are not, a sentence each."""

    peers: tuple[Peer, ...]
    refused: tuple[str, ...]


class ProxyClient:
    """Asks the proxy that listens on a unix socket. Safe for threads: each call has a connection of its own.

    Every method raises ProxyError. Descriptors that are passed stay the caller's to close.
    """

    def __init__(self, socket_path: Path | str) -> None:
        self._path = str(socket_path)

    def open(self, order: Mapping[str, Any], destination: int) -> OpenedRun:
        """Decrypts and checks the input of an order (one of "runs" in the server's answer) into a descriptor.

        The descriptor must be open for reading and writing; it is left empty on an error.
        """
        answer = self._ask({"op": "open", "order": order}, [destination])
        return OpenedRun(
            sender=Sender(**answer["sender"]),
            method=answer["method"],
            databases=tuple(answer["databases"]),
            image=answer["image"],
            resume=answer["resume"],
        )

    def serve(
        self, resume: Mapping[str, Any], token: str, listeners: Sequence[int], relays: Sequence[tuple[Lead, int]] = ()
    ) -> str:
        """Opens the run's gate on listening sockets, and each relay on its own; the gate token."""
        request = {"op": "serve", "resume": resume, "token": token, "relays": [lead.dump() for lead, _ in relays]}
        return str(self._ask(request, [*listeners, *(listener for _, listener in relays)])["gate_token"])

    def introduce(self, resume: Mapping[str, Any], job: int, said: Mapping[str, Any]) -> dict[str, Any]:
        """The organization's signed word of how its run is reached over the VPN; ``job`` is the server's claim."""
        request = {"op": "introduce", "resume": resume, "job": job, "peer": said}
        return dict(self._ask(request, [])["statement"])

    def judge(self, resume: Mapping[str, Any], token: str, job: int, statements: Sequence[Any]) -> Judged:
        """Which of the statements that the server handed on can be believed."""
        request = {"op": "judge", "resume": resume, "token": token, "job": job, "statements": statements}
        answer = self._ask(request, [])
        return Judged(tuple(Peer.parse(one) for one in answer["statements"]), tuple(answer["refused"]))

    def seal(self, resume: Mapping[str, Any], log: str, output: int | None, destination: int | None) -> Sealed:
        """Encrypts the log and, if both descriptors are given, the output into the destination."""
        descriptors = [] if output is None or destination is None else [output, destination]
        answer = self._ask({"op": "seal", "resume": resume, "log": log}, descriptors)
        return Sealed(answer["size"], answer["log"])

    def deliver(self, resume: Mapping[str, Any], token: str, status: str, log: str | None, sealed: int | None) -> str:
        """Tells the server how the run ended, with its sealed result if there is one; may be repeated."""
        request = {"op": "deliver", "resume": resume, "token": token, "finish": {"status": status, "log": log}}
        return str(self._ask(request, [] if sealed is None else [sealed])["status"])

    def hand_over(self, resume: Mapping[str, Any], token: str, status: str, log: str | None, output: int) -> str:
        """The same with the result as the algorithm left it, which is sealed while it is sent."""
        request = {"op": "hand_over", "resume": resume, "token": token, "finish": {"status": status, "log": log}}
        return str(self._ask(request, [output])["status"])

    def close(self, run: int, attempt: int) -> GateUse:
        """Closes the run's gate and relays, if it has any; what they were asked since this proxy opened them."""
        answer = self._ask({"op": "close", "run": run, "attempt": attempt})
        calls, refused = dict(answer["calls"]), dict(answer["refused"])
        return GateUse(calls, refused, tuple(answer["children"]), tuple(answer["relays"]))

    def pins(self) -> list[dict[str, Any]]:
        """The pinned keys: ``organization_id``, ``fingerprint``, ``confirmed``."""
        return list(self._ask({"op": "pins"})["data"])

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(self._path)
                send_frame(connection, request, descriptors)
                answer, _ = receive_frame(connection)
        except (OSError, ValueError) as error:
            raise ProxyError("internal", f"The proxy does not answer: {error}") from error
        if "error" in answer:
            raise ProxyError(str(answer["error"]["kind"]), str(answer["error"]["message"]))
        return answer


class ProxyProcess:
    """A proxy that runs. It lives as long as this process holds the lifeline; ``stop`` lets go of it."""

    def __init__(self, process: subprocess.Popen[bytes], client: ProxyClient) -> None:
        self._process = process
        self.client = client

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._process.wait(timeout)

    def stop(self) -> None:
        """Ends the proxy and all its gates."""
        _close_pipes(self._process)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def spawn(
    settings: Mapping[str, Any], key_fd: int | None = None, uid: int | None = None, gid: int | None = None
) -> ProxyProcess:
    """Starts a proxy and waits until it listens. Raises ConfigurationError when it does not come up; why is on stderr.

    ``settings``: those of the protocol. ``key_fd``: the organization's key file, open for reading. ``uid``, ``gid``:
    the user that it becomes, for which this process must be root; None keeps this process's own.
    """
    settings_fd = _pipe(json.dumps(settings).encode())
    inherited = [fd for fd in (settings_fd, key_fd) if fd is not None]
    try:
        process = subprocess.Popen(
            _command(settings_fd, key_fd, uid, gid),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=inherited,
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(settings_fd)
    if process.stdout is None or not process.stdout.readline():
        _close_pipes(process)
        raise ConfigurationError(f"The proxy did not start (exit code {process.wait()}); it said why above.")
    return ProxyProcess(process, ProxyClient(settings["control_socket"]))


def _command(settings_fd: int, key_fd: int | None, uid: int | None, gid: int | None) -> list[str]:
    command = [sys.executable, "-m", "skerry_proxy", "--settings-fd", str(settings_fd)]
    if key_fd is not None:
        command += ["--key-fd", str(key_fd)]
    if uid is not None:
        command += ["--user", str(uid), "--group", str(uid if gid is None else gid)]
    return command


def _environment() -> dict[str, str]:
    """Nothing of the node's own, but that the same modules are found."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
    }


def _pipe(content: bytes) -> int:
    """A descriptor from which the content can be read, once."""
    descriptor = os.memfd_create("settings", 0)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
