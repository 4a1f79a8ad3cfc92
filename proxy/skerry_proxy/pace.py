"""How often something may be done: so many times at once, and so many a second after that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Who comes too early waits for a turn. Safe for threads; ``clock`` tells seconds."""

    def __init__(self, at_once: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = 1 / per_second
        self._credit = at_once * self._seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock() - self._credit

    def take(self) -> float:
        """A turn, and the seconds until it comes."""
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now - self._credit) + self._seconds
            return max(0.0, self._next - now)

    def wait(self, closing: threading.Event) -> None:
        """Until the turn has come, or ``closing``."""
        seconds = self.take()
        if seconds > 0:
            closing.wait(seconds)
