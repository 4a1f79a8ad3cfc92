"""Seconds that nobody sets: how long a run takes, whatever the machine's clock is set to meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def since_boot() -> float:
    """Seconds; they go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which boot those seconds are counted from."""
    return _BOOT_ID.read_text().strip()
