"""Folders of a bounded size, where the node may mount: a tmpfs, or on the disk a file system in a file of that size.

Where it may not, they are plain folders.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from skerry_node.launchers.launcher import LauncherError

CAP_SYS_ADMIN = 21
CAP_SETUID = 7
"""Numbers of linux/capability.h."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_LOOP_SET_DIRECT_IO = 0x4C08
_INODES = 65536
_OVERHEAD, _LEAST_OVERHEAD = 32, 32 << 20
"""What a file system needs for itself: one part in so many, and at least so many bytes."""


def mountable() -> bool:
    """Whether this process may mount: root with CAP_SYS_ADMIN."""
    return os.geteuid() == 0 and has_capability(CAP_SYS_ADMIN)


def has_capability(number: int) -> bool:
    """Whether the process has the capability of that number."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def make(path: Path, size: int, *, mode: int, user: int | None, group: int | None, on_disk: bool = False) -> None:
    """An empty folder, owned and bounded as said; one that is there already is kept. Raises LauncherError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mountable():
        if not path.is_mount():
            (_mount_file if on_disk else _mount)(path, size)
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


def _mount_file(path: Path, size: int) -> None:
    """The file takes room as it is filled, and has no name any more: it goes when the folder does."""
    file = path.with_name(f"{path.name}.ext4")
    file.unlink(missing_ok=True)  # of a node that was killed here
    try:
        with file.open("xb") as made:
            made.truncate(size + size // _OVERHEAD + _LEAST_OVERHEAD)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-N", str(_INODES), str(file))
        _run("mount", "-o", "loop,nosuid,nodev,noexec", str(file), str(path))
    except OSError as error:
        raise LauncherError(f"No file system of {size} bytes can be made at {path} ({error.strerror}).") from error
    finally:
        file.unlink(missing_ok=True)
    (path / "lost+found").rmdir()
    with suppress(OSError):  # the file system below can't
        _cache_once(path)


def _cache_once(path: Path) -> None:
    """What lies in the file system is in the page cache already: its file, which has it again, goes past it.

    Not where the file lies on no one device (btrfs, overlayfs, a share): there it is not known to be safe.
    """
    if not os.major(path.parent.stat().st_dev):
        return
    device = path.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
    with Path("/dev", name).open("rb", buffering=0) as loop:
        fcntl.ioctl(loop, _LOOP_SET_DIRECT_IO, 1)


def _run(*command: str) -> None:
    """Raises LauncherError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LauncherError(f"{command[0]} failed: {' '.join(done.stderr.split())}")


def _unmount(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        raise LauncherError(f"{path} can't be unmounted ({os.strerror(ctypes.get_errno())}).")
