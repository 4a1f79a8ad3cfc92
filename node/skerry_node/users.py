"""The users and groups that runs get: a range of numbers that nobody else on the machine uses."""

from __future__ import annotations

import threading
from collections.abc import Iterable

_RUNS = 500
_PREFLIGHT = _RUNS - 1
_HOLDERS = _RUNS - 2
_BASES = 1_900_000_000
"""Above what systemd and the usual /etc/subuid hand out (systemd.io/UIDS-GIDS), below 2**31."""
_RANGES = 100_000


def default_base(installation: str) -> int:
    """The first of the thousand numbers of an installation."""
    return _BASES + int(installation, 16) % _RANGES * 1000


def preflight_user(base: int) -> int:
    """The user of the probes; never a run's."""
    return base + _PREFLIGHT


def holder_user(base: int) -> int:
    """The user of the namespace holders, who owns the namespaces that they make: nobody else's on the machine."""
    return base + _HOLDERS


class Users:
    """Numbers for runs, each used by one run at a time; job groups come from the other half of the range."""

    def __init__(self, base: int, taken: Iterable[int]) -> None:
        self._base = base
        self._taken = set(taken)
        self._lock = threading.Lock()

    def take(self) -> int:
        with self._lock:
            user = next(user for user in range(self._base, self._base + _HOLDERS) if user not in self._taken)
            self._taken.add(user)
            return user

    def give_back(self, user: int) -> None:
        with self._lock:
            self._taken.discard(user)

    def group_of(self, job: int) -> int:
        return self._base + _RUNS + job % _RUNS
