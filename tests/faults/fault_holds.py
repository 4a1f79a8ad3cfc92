"""Keeps runs in a phase that lasts milliseconds: the bytes of their deliveries are held back until a strike."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from fault_table import Phase

_TOGETHER = 4
"""So many runs of each node; the others go on."""
_LONGEST = 10.0


class Holds:
    """``keep`` says in which phase runs are to stay; ``stay`` is called by the threads that have their bytes."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}

    def keep(self, phase: Phase | None, nodes: Iterable[str]) -> None:
        """From now on, at these nodes; those who stayed there until now go on."""
        for node in nodes:
            last, self._holds[node] = self._holds.get(node), _Hold(phase)
            if last is not None:
                last.over.set()

    def stay(self, node: str, phase: Phase) -> None:
        hold = self._holds.get(node)
        if hold is not None and hold.takes(phase):
            hold.over.wait(_LONGEST)


class _Hold:
    def __init__(self, phase: Phase | None) -> None:
        self.over = threading.Event()
        self._phase = phase
        self._places = threading.Semaphore(_TOGETHER)

    def takes(self, phase: Phase) -> bool:
        return phase is self._phase and self._places.acquire(blocking=False)
