"""How many runs go on at once on a node."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skerry_node.launchers.launcher import Attempt

_DEPTH = 8
"""At most so many runs go on for each place: it is lent to a child, and by that to a child of its own."""


class Places:
    """Each run that goes on has one; a run that waits for its owner's word needs none. Safe for threads."""

    def __init__(self, number: int, on_change: Callable[[], None]) -> None:
        self._number = number
        self._on_change = on_change
        self._taken: set[Attempt] = set()
        self._offered = self._left = 0
        self._lock = threading.Lock()

    def offer(self) -> int:
        """How many are free. When none is, ``on_change`` is called as soon as one becomes so."""
        with self._lock:
            self._offered = self._left = max(self._number - len(self._taken), 0)
            return self._offered

    def accept(self, attempt: Attempt, *, child: bool) -> bool:
        """For a run that the node is given: false for one more than was offered.

        A child may have the place of a run that waits for it; which one that is, the server knows.
        """
        with self._lock:
            if self._left == 0 and not (child and len(self._taken) < _DEPTH * self._number):
                return False
            self._left = max(self._left - 1, 0)
            self._taken.add(attempt)
            return True

    def enter(self, attempt: Attempt) -> None:
        """For a run that goes on from an earlier start of the node."""
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
