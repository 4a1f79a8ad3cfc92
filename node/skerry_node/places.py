"""How many runs go on at once on a node."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skerry_node.launchers.launcher import Attempt


class Places:
    """Each run that goes on has one; a run that waits for its owner's word needs none. Safe for threads."""

    def __init__(self, number: int, on_change: Callable[[], None]) -> None:
        self._number = number
        self._on_change = on_change
        self._taken: set[Attempt] = set()
        self._offered = 0
        self._lock = threading.Lock()

    def offer(self) -> int:
        """How many are free. When none is, ``on_change`` is called as soon as one becomes so."""
        with self._lock:
            self._offered = max(self._number - len(self._taken), 0)
            return self._offered

    def enter(self, attempt: Attempt) -> None:
        """For a run that the node was given: its place was offered, or it stands in for one that waits for it."""
        with self._lock:
            self._taken.add(attempt)

    def try_enter(self, attempt: Attempt) -> bool:
        """For a run that may go on at last. ``on_change`` is called, since what was offered is no longer so."""
        with self._lock:
            if len(self._taken) >= self._number:
                return False
            self._taken.add(attempt)
        self._on_change()
        return True

    def leave(self, attempt: Attempt) -> None:
        """Nothing happens when it has no place."""
        with self._lock:
            room = attempt in self._taken and self._offered == 0
            self._taken.discard(attempt)
        if room:
            self._on_change()
