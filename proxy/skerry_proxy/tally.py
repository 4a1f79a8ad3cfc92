"""What the gate of one run was asked, for the node's audit journal."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

_MOST_CHILDREN = 10_000


class Tally:
    """Calls by route, refusals by status, and the child tasks that were made. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._children: list[int] = []

    def count_call(self, route: str) -> None:
        with self._lock:
            self._calls[route] += 1

    def count_refusal(self, status: int) -> None:
        with self._lock:
            self._refused[str(status)] += 1

    def add_child(self, task: int) -> None:
        with self._lock:
            if len(self._children) < _MOST_CHILDREN:
                self._children.append(task)

    def dump(self) -> dict[str, Any]:
        """As it travels to the node."""
        with self._lock:
            return {"calls": dict(self._calls), "refused": dict(self._refused), "children": list(self._children)}
