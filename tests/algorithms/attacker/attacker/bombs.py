"""Using up what others need. Each stops by itself soon after the bound that it should have met."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MIB = 1 << 20


def _fork(facts: Mapping[str, Any]) -> tuple[bool, str]:
    children: list[int] = []
    try:
        for _ in range(facts["processes"]):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError as error:
        return False, f"refused: {error} after {len(children)}"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return True, f"{len(children)} processes"


def _memory(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """In a child, which the kernel then ends alone."""
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_score_adj").write_text("1000")
        held = bytearray(facts["memory"] * _MIB)
        held[::4096] = b"x" * len(held[::4096])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status == 0, f"ended with {status}" if status else "all of it"


def _fill(folder: str, megabytes: int) -> tuple[bool, str]:
    written: list[Path] = []
    try:
        for number in range(megabytes):
            written.append(Path(folder) / f"bomb-{number}")
            written[-1].write_bytes(b"x" * _MIB)
    except OSError as error:
        return False, f"refused: {error}"
    finally:
        for path in written:
            path.unlink(missing_ok=True)
    return True, f"{megabytes} MiB in {folder}"


def _inodes(facts: Mapping[str, Any]) -> tuple[bool, str]:
    folder, made = Path(os.environ["OUTPUT_FILE"]).parent, []
    try:
        for number in range(facts["inodes"]):
            made.append(folder / f"i{number}")
            os.close(os.open(made[-1], os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        return False, f"refused: {error}"
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return True, f"{len(made)} files"


BOMBS = {
    "fork-bomb": _fork,
    "memory-bomb": _memory,
    "disk-bomb-tmp": lambda facts: _fill("/tmp", facts["disk"]),
    "disk-bomb-own": lambda facts: _fill(str(Path(os.environ["OUTPUT_FILE"]).parent), facts["disk"]),
    "disk-bomb-shared": lambda facts: _fill(os.environ["TEMPORARY_FOLDER"], facts["disk"]),
    "disk-bomb-shm": lambda facts: _fill("/dev/shm", facts["shm"]),
    "disk-bomb-volume": lambda facts: _fill("/data", facts["disk"]),
    "inode-bomb": _inodes,
}
