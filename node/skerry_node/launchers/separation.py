"""What a plain process can be separated by on this machine: namespaces, a user of its own, bounds."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct
from enum import StrEnum
from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 64
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class Separation(StrEnum):
    """The namespaces, in the order in which they are entered (namespaces(7))."""

    USER = "user"
    MOUNT = "mount"
    NETWORK = "network"
    IPC = "ipc"
    PID = "pid"


_FLAGS = {
    Separation.USER: 0x10000000,
    Separation.MOUNT: 0x00020000,
    Separation.NETWORK: 0x40000000,
    Separation.IPC: 0x08000000,
    Separation.PID: 0x20000000,
}


def enter(separation: Separation) -> None:
    """Moves this process, which must have one thread only, into a new namespace. Raises OSError.

    In the network namespace ``lo`` is up; the mount namespace is private; the user namespace knows this user alone.
    A new pid namespace begins with the next child.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_libc().unshare(_FLAGS[separation]))
    if separation is Separation.USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    elif separation is Separation.MOUNT:
        _check(_libc().mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    elif separation is Separation.NETWORK:
        _bring_up_loopback()


def mount_proc() -> None:
    """Shows only the processes of the new pid namespace; called by its first process. Raises OSError."""
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _check(_libc().mount(b"proc", b"/proc", b"proc", flags, None))


def give_up_rights(user: int | None, groups: list[int]) -> None:
    """Becomes that user for good, where one is given, and never gains a right again. Raises OSError."""
    libc = _libc()
    for capability in range(_CAPABILITIES):
        # Fails beyond the kernel's last one, and where there is nothing to give up.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if user is not None:
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def bound(limits: dict[str, int]) -> None:
    """Sets resource limits by their names in setrlimit(2), never above what there is. Raises OSError."""
    for name, limit in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (value, value))


def join_network(pid: int) -> None:
    """Moves this process, which must have one thread only, into the network namespace of another. Raises OSError."""
    libc = _libc()
    names = [("user", Separation.USER), ("net", Separation.NETWORK)]
    # Both are opened before either is entered: what may be opened changes with the user namespace.
    opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), name, kind) for name, kind in names]
    for descriptor, name, kind in opened:
        if os.fstat(descriptor).st_ino != Path(f"/proc/self/ns/{name}").stat().st_ino:
            _check(libc.setns(descriptor, _FLAGS[kind]))
        os.close(descriptor)


def _bring_up_loopback() -> None:
    """Sets IFF_UP on lo (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        _, flags = struct.unpack("16sH22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
