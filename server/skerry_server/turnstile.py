"""Who may go on at once: threads that all want the interpreter hold each other up.

Each statement of the database gives the interpreter away and must win it back. With sixteen requests at it, a list of
ten tasks costs the processor half as much again as with one, and all of them are late. So few are let in at a time, in
the order in which they came. One that takes long waits, as a rule, for something else than the interpreter (a commit, a
lock, a store, a password's hash): it no longer counts.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

LONG_SECONDS = 0.01


class Turnstile:
    """For one event loop. ``places``: how many may go on at once, apart from those that take long."""

    def __init__(self, places: int, long_seconds: float = LONG_SECONDS) -> None:
        self._free = asyncio.Semaphore(places)
        self._long_seconds = long_seconds

    async def enter(self) -> Turn:
        """To be left with the block."""
        await self._free.acquire()
        return Turn(self._free, self._long_seconds)


class Turn:
    """Frees its place once: when it is over, or has taken long."""

    def __init__(self, free: asyncio.Semaphore, long_seconds: float) -> None:
        self._free = free
        self._timer = asyncio.get_running_loop().call_later(long_seconds, self._end)
        self._ended = False

    def __enter__(self) -> None:
        """It has begun already."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._free.release()
