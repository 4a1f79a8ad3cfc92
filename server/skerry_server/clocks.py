"""What time it is: for several processes of one server, their database's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from skerry_server.models import utcnow

_LOG = logging.getLogger(__name__)
_APART_SECONDS = 60.0


def since_boot() -> float:
    """Seconds that nobody sets, and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SharedClock:
    """Naive UTC as the database last said it, and ``steady`` counts the seconds since; else the machine's.

    So all processes mean the same by the end of a lease or of a token, whatever the clocks of their machines say.
    """

    def __init__(self, machine: Callable[[], datetime] = utcnow, steady: Callable[[], float] = since_boot) -> None:
        self._machine = machine
        self._steady = steady
        self._said = 0.0
        self._reading: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._reading is None:
            return self._machine()
        now, at = self._reading
        return now + timedelta(seconds=self._steady() - at)

    def set(self, now: datetime | None) -> None:
        """``now``: what the database has just said; None where it has no clock of its own.

        Where this machine's clock is far from it, the log says so.
        """
        if now is None:
            return
        self._reading = now, self._steady()
        apart = (self._machine() - now).total_seconds()
        if abs(apart) < _APART_SECONDS:
            self._said = 0.0
        elif abs(apart - self._said) >= _APART_SECONDS / 2:
            self._said = apart
            _LOG.warning(
                "this machine's clock is %.0f s %s the database's: leases and tokens go by the database's. "
                "Set both by the same time service (NTP).",
                abs(apart),
                "ahead of" if apart > 0 else "behind",
            )
