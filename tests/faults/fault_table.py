"""How far a run is, and how often each fault met a run in each phase."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


class Phases:
    """Where each run is."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._of: dict[int, Phase] = {}
        self.node_of: dict[int, str] = {}
        self.ended = 0

    def reach(self, run: int, phase: Phase, node: str = "") -> None:
        with self._moved:
            if node:
                self.node_of[run] = node
            if run in self._of and phase <= self._of[run]:
                return
            self._of[run] = phase
            self.ended += phase is Phase.OVER
            self._moved.notify_all()

    def is_in(self, run: int, phase: Phase) -> bool:
        with self._moved:
            return self._of.get(run) is phase

    def now(self, nodes: Sequence[str]) -> Counter[Phase]:
        """How many of the runs at these nodes are where, without those that are over."""
        with self._moved:
            there = Counter(phase for run, phase in self._of.items() if self.node_of.get(run) in nodes)
        del there[Phase.OVER]
        return there

    def wait_for(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Asked at each step of a run; False when the time is over."""
        with self._moved:
            return self._moved.wait_for(reached, seconds)


@dataclass
class Ledger:
    """What the driver saw. ``before``: how often faults had met phases in other worlds."""

    before: Mapping[Cell, int] = field(default_factory=dict)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    met: Counter[Cell] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, fault: str, there: Mapping[Phase, int]) -> None:
        with self.lock:
            self.faults[fault] += 1
            self.met.update({(fault, phase): number for phase, number in there.items()})

    def gain(self, kind: str, there: Mapping[Phase, int]) -> int:
        """How many of the runs that are in these phases a strike would be counted for that is still lacking."""
        return sum(min(number, self._lack(kind, phase)) for phase, number in there.items())

    def poorest(self, kinds: Sequence[str], phases: Iterable[Phase]) -> Phase | None:
        """The one of the phases that these faults lack most, if they lack any of them."""
        lacks = {phase: sum(self._lack(kind, phase) for kind in kinds) for phase in phases}
        return max(lacks, key=lacks.__getitem__) if any(lacks.values()) else None

    def _lack(self, kind: str, phase: Phase) -> int:
        return max(GOAL - self.met[kind, phase] - self.before.get((kind, phase), 0), 0)


def table(met: Mapping[Cell, int], struck: Mapping[str, int], kinds: Sequence[str]) -> Iterator[str]:
    """A line for each fault; the last one names the cells that were met less often than is the goal."""
    yield f"{'':<20}" + "".join(f"{phase.words:>18}" for phase in PHASES) + f"{'struck':>10}"
    for kind in kinds:
        cells = "".join(f"{met.get((kind, phase), 0):>18}" for phase in PHASES)
        yield f"{kind:<20}{cells}{struck.get(kind, 0):>10}"
    few = [f"{kind} x {phase.words}" for kind in kinds for phase in PHASES if met.get((kind, phase), 0) < GOAL]
    enough = len(kinds) * len(PHASES) - len(few)
    yield f"{enough} cells were met {GOAL} times or more, {len(few)} were not: {', '.join(few) or '-'}"
