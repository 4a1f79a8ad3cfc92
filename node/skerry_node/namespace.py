"""Opening a listener inside the network namespace of another process."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from skerry_node.launchers.launcher import LauncherError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_BACKLOG = 64


def listen(port: int) -> socket.socket:
    """A listener on 127.0.0.1; port 0 is any. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen_at(path: Path, user: int | None) -> socket.socket:
    """A listener on a unix socket that replaces what is at ``path``; only ``user`` and root can connect.

    The folder must be closed to others for writing. Raises LauncherError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = None
    try:
        path.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # By the folder's descriptor: the path itself may be longer than a socket's address can be.
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        if user is not None:
            os.chown(path, user, user)
        path.chmod(0o600)
        # Nobody can connect before this.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise LauncherError(f"The gate can't listen on a unix socket for a run ({error.strerror}).") from error
    finally:
        if folder is not None:
            os.close(folder)
    return listener


def listen_inside(pid: int, port: int) -> socket.socket:
    """A listener on 127.0.0.1 of the network namespace of process ``pid``. Raises LauncherError."""
    namespace = open_of(pid)
    try:
        return inside(namespace, lambda: _listen_here(port))
    finally:
        os.close(namespace)


def open_of(pid: int) -> int:
    """A descriptor of the network namespace of process ``pid``. Raises LauncherError."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LauncherError(
            f"The namespace of process {pid} can't be opened ({error.strerror}): the node needs root, and must see "
            "the engine's processes (in a container: the host's pid namespace)."
        ) from error


def identify(pid: int) -> tuple[int, int]:
    """The device and inode by which the network namespace of process ``pid`` is known. Raises LauncherError."""
    try:
        seen = os.stat(f"/proc/{pid}/ns/net")  # noqa: PTH116 - follows a magic link
    except OSError as error:
        raise LauncherError(f"The namespace of process {pid} can't be looked at ({error.strerror}).") from error
    return seen.st_dev, seen.st_ino


def inside(namespace: int, work: Callable[[], T]) -> T:
    """What ``work`` gives, done in a thread that has entered this network namespace. Raises LauncherError.

    Refuses the node's own namespace: what belongs into a run's must never end up there.
    """
    _refuse_own(namespace)
    outcome: list[T | BaseException] = []

    def body() -> None:
        try:
            _enter(namespace)
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that waits for it
            outcome.append(error)

    _run_in_thread(body)
    [result] = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def make_empty() -> int:
    """The descriptor of a fresh network namespace that is gone when it is closed. Raises LauncherError."""
    outcome: list[int] = []

    def body() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
            outcome.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    _run_in_thread(body)
    if not outcome:
        raise LauncherError("The node can't make a network namespace: run it as root, with CAP_SYS_ADMIN.")
    return outcome[0]


def _refuse_own(namespace: int) -> None:
    if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):  # noqa: PTH116 - follows a magic link
        raise LauncherError("A run's namespace turned out to be the node's own; nothing is started in it.")


def _listen_here(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        raise LauncherError(f"The gate can't listen on port {port} in a run's namespace ({error.strerror}).") from error


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) == 0:
        return
    number = ctypes.get_errno()
    remedy = "run the node as root, with CAP_SYS_ADMIN" if number == errno.EPERM else "see setns(2)"
    raise LauncherError(f"The node can't enter a run's network namespace ({os.strerror(number)}): {remedy}.")


def _run_in_thread(body: Callable[[], None]) -> None:
    """Only the thread moves; all others stay in the namespace where they are."""
    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
