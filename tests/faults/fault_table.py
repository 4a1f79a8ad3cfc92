"""How far a run is, and how often each fault met a run in each phase."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from fault_history import Acknowledged, Told

GOAL = 5
"""So often each fault is to meet each phase."""


class Phase(IntEnum):
    """How far a run is; what it is in when a fault strikes is what counts."""

    BEFORE_CLAIM = 0
    AFTER_CLAIM = 1
    CREATED = 2
    STARTED = 3
    RUNNING = 4
    EXITED = 5
    ENCRYPTED = 6
    HALF_UPLOADED = 7
    NOT_ACKNOWLEDGED = 8
    OVER = 9

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


PHASES = tuple(phase for phase in Phase if phase is not Phase.OVER)
Cell = tuple[str, Phase]
Trap = Callable[[int, Phase], Callable[[], None] | None]


class Phases:
    """Where each run is. A trap is asked at each step; what it answers is called by the thread that found the step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[int, Phase] = {}
        self.node_of: dict[int, str] = {}
        self.ended = 0
        self._trap: Trap | None = None

    def reach(self, run: int, phase: Phase, node: str = "") -> None:
        with self._lock:
            if node:
                self.node_of[run] = node
            if phase <= self._of.get(run, Phase.BEFORE_CLAIM) and run in self._of:
                return
            self._of[run] = phase
            self.ended += phase is Phase.OVER
            sprung = self._trap(run, phase) if self._trap is not None else None
            if sprung is not None:
                self._trap = None
        if sprung is not None:
            sprung()

    def set_trap(self, trap: Trap) -> None:
        """It is asked under a lock, and lifted when it springs."""
        with self._lock:
            self._trap = trap

    def lift_trap(self) -> bool:
        """False when it was sprung."""
        with self._lock:
            there, self._trap = self._trap is not None, None
            return there

    def now(self, nodes: Sequence[str]) -> list[Phase]:
        """Of the runs at these nodes that are not over."""
        with self._lock:
            return [
                phase for run, phase in self._of.items() if phase is not Phase.OVER and self.node_of.get(run) in nodes
            ]


@dataclass
class Ledger:
    """What the driver saw."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    met: Counter[Cell] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, fault: str, phases: Sequence[Phase]) -> None:
        with self.lock:
            self.faults[fault] += 1
            self.met.update((fault, phase) for phase in phases)

    def emptiest(self, kinds: Sequence[str], phase: Phase) -> tuple[int, str]:
        """The fault that met the phase least often, and how often."""
        kind = min(kinds, key=lambda kind: self.met[kind, phase])
        return self.met[kind, phase], kind


def table(met: Mapping[Cell, int], struck: Mapping[str, int], kinds: Sequence[str]) -> Iterator[str]:
    """A line for each fault; the last one names the cells that were met less often than is the goal."""
    yield f"{'':<20}" + "".join(f"{phase.words:>18}" for phase in PHASES) + f"{'struck':>10}"
    for kind in kinds:
        cells = "".join(f"{met.get((kind, phase), 0):>18}" for phase in PHASES)
        yield f"{kind:<20}{cells}{struck.get(kind, 0):>10}"
    few = [f"{kind} x {phase.words}" for kind in kinds for phase in PHASES if met.get((kind, phase), 0) < GOAL]
    enough = len(kinds) * len(PHASES) - len(few)
    yield f"{enough} cells were met {GOAL} times or more, {len(few)} were not: {', '.join(few) or '-'}"
