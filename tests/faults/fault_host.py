"""What a part believes to be its machine: a clock that may jump, and a disk of its own that may be full."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
NOTICED_SECONDS = 1
"""After so long a jump is noticed: to look at each reading of the clock costs more than all else that a server does."""
_RIGHT = "+0"
_HOOK = """
import os, select, sys, time
if "LD_PRELOAD" not in os.environ:
    os.environ.update({settings!r})
    os.execv(sys.executable, sys.orig_argv)
# Python sleeps until a time of the monotonic clock, which libfaketime 0.9 takes for one of the other.
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


class Clock:
    """libfaketime under every Python process whose PYTHONPATH begins with ``folder``, and under those it starts.

    The monotonic clock is left alone, as it is when a machine's clock is set.
    """

    def __init__(self, folder: Path) -> None:
        if not LIBRARY.exists():
            raise FileNotFoundError(f"{LIBRARY} is missing: tests/programs.sh installs it")
        self._offset = folder / "offset"
        self.folder = folder
        folder.mkdir(mode=0o755)
        settings = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_CACHE_DURATION": str(NOTICED_SECONDS),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else each thread that waits for Python's lock looks at it without a pause.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }
        (folder / "sitecustomize.py").write_text(_HOOK.format(settings=settings))
        self.set_right()

    def jump(self, seconds: int) -> None:
        self._set(f"{seconds:+d}")

    def set_right(self) -> None:
        self._set(_RIGHT)

    def _set(self, offset: str) -> None:
        draft = self._offset.with_name("draft")
        draft.write_text(f"{offset}\n")
        draft.chmod(0o644)
        draft.rename(self._offset)


def remove_clocks() -> None:
    """What libfaketime left in shared memory of processes that were killed."""
    for path in Path("/dev/shm").glob("*faketime_*"):
        pid = path.name.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            path.unlink(missing_ok=True)


class Disk:
    """A small file system under a folder, with what was in the folder. Needs root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"
        was = folder.stat()
        aside = folder.with_name(f"{folder.name}.aside")
        folder.rename(aside)
        folder.mkdir()
        options = f"size={megabytes}m,mode={was.st_mode & 0o7777:o},uid={was.st_uid},gid={was.st_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        subprocess.run(["cp", "-a", f"{aside}/.", folder], check=True)
        shutil.rmtree(aside)

    def fill(self) -> Callable[[], None]:
        """No byte is free any more until what is returned is called."""
        descriptor = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        with contextlib.suppress(OSError):
            size = 0
            while (free := os.fstatvfs(descriptor)).f_bavail:
                os.posix_fallocate(descriptor, size, free.f_bavail * free.f_frsize)
                size += free.f_bavail * free.f_frsize
        os.close(descriptor)
        return lambda: self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--recursive", "--lazy", self._folder], check=False)
