"""Folders of a bounded size: a tmpfs where the node may mount one, else a plain folder."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from skerry_node.launchers.launcher import LauncherError

CAP_SYS_ADMIN = 21
CAP_SETUID = 7
"""Numbers of linux/capability.h."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_INODES = 65536


def mountable() -> bool:
    """Whether this process may mount: root with CAP_SYS_ADMIN."""
    return os.geteuid() == 0 and has_capability(CAP_SYS_ADMIN)


def has_capability(number: int) -> bool:
    """Whether the process has the capability of that number."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def make(path: Path, size: int, *, mode: int, user: int | None, group: int | None) -> None:
    """An empty folder, owned and bounded as said; one that is there already is kept. Raises LauncherError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mountable():
        if not path.is_mount():
            _mount(path, size)
        os.chown(path, -1 if user is None else user, -1 if group is None else group)
    path.chmod(mode)


def remove(path: Path) -> None:
    """The folder with all in it is gone; nothing happens when there is none. Raises LauncherError."""
    if path.is_mount():
        _unmount(path)
    shutil.rmtree(path, ignore_errors=True)


def _mount(path: Path, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size},nr_inodes={_INODES},mode=0700".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"skerry", os.fsencode(path), b"tmpfs", ctypes.c_ulong(flags), options) != 0:
        raise LauncherError(f"A tmpfs can't be mounted at {path} ({os.strerror(ctypes.get_errno())}).")


def _unmount(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        raise LauncherError(f"{path} can't be unmounted ({os.strerror(ctypes.get_errno())}).")
