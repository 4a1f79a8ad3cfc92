"""Runs tasks while parts are killed, cut off and lied to; counts in which phase each fault really met a run."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from fault_history import Acknowledged, History, Told
from fault_proxy import Harm, Request
from fault_world import IMAGE, Engine, World, digest

from skerry.errors import SkerryError


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
_MORE_AT_THE_END = 5
"""Requests that deliver a result are few, and most can go wrong with them."""
_HEARD = {
    "run.order": Phase.AFTER_CLAIM,
    "run.start": Phase.CREATED,
    "run.started": Phase.STARTED,
    "counter.start": Phase.RUNNING,
    "counter.end": Phase.EXITED,
    "run.end": Phase.EXITED,
    "run.seal": Phase.ENCRYPTED,
    "run.delivered": Phase.OVER,
    "run.clean": Phase.OVER,
}
_MOMENTS = {"half": Phase.HALF_UPLOADED, "answered": Phase.NOT_ACKNOWLEDGED}
KILLS = ("server", "node", "proxy", "engine", "machine")
CUTS = ("cut towards server", "cut towards client")
ROOM = ("no room at server", "no room at node")


class Phases:
    """Where each run is. ``trap``: is called, once, by the thread that finds a run in the phase that it waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[int, Phase] = {}
        self.node_of: dict[int, str] = {}
        self._trap: tuple[Phase, str | None, Callable[[], None]] | None = None

    def reach(self, run: int, phase: Phase, node: str = "") -> None:
        with self._lock:
            if node:
                self.node_of[run] = node
            if phase <= self._of.get(run, Phase.BEFORE_CLAIM) and run in self._of:
                return
            self._of[run] = phase
            trap = self._spring(run, phase)
        if trap is not None:
            trap()

    def set_trap(self, phase: Phase, node: str | None, then: Callable[[], None]) -> None:
        with self._lock:
            self._trap = (phase, node, then)

    def _spring(self, run: int, phase: Phase) -> Callable[[], None] | None:
        if self._trap is None or self._trap[0] != phase or self._trap[1] not in {None, self.node_of.get(run)}:
            return None
        (_, _, then), self._trap = self._trap, None
        return then

    def lift_trap(self) -> bool:
        """False when it was sprung."""
        with self._lock:
            there, self._trap = self._trap is not None, None
            return there

    def now(self, node: str | None = None) -> dict[int, Phase]:
        with self._lock:
            return {
                run: phase
                for run, phase in self._of.items()
                if phase is not Phase.OVER and node in {None, self.node_of.get(run)}
            }

    def of(self, run: int) -> Phase | None:
        with self._lock:
            return self._of.get(run)


@dataclass
class Ledger:
    """What the driver saw."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    met: Counter[tuple[str, Phase]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, fault: str, phases: Sequence[Phase]) -> None:
        with self.lock:
            self.faults[fault] += 1
            self.met.update((fault, phase) for phase in phases)


class Driver:
    """``harms``: the share of requests to which something is done."""

    def __init__(self, world: World, engine: Engine | None, *, canary: str, harms: float, seed: int) -> None:
        self.world = world
        self.engine = engine
        self.canary = canary
        self.harms = harms
        self.random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.phases = Phases()
        self.seen = Ledger()
        self.calm = threading.Event()
        self._mending: list[threading.Timer] = []
        self._left = 0
        self._number = 0
        self._lock = threading.Lock()
        world.heard = self._hear
        for way in (world.to_nodes, world.to_clients):
            way.pick = self._pick
            way.notice = self._notice

    # --- what is heard -----------------------------------------------------------------------------------

    def _hear(self, node: str, what: str, run: int) -> None:
        if what in _HEARD:
            self.phases.reach(run, _HEARD[what], node)

    def _notice(self, moment: str, request: Request) -> None:
        if moment in _MOMENTS and request.run is not None and (moment == "half" or request.ends):
            self.phases.reach(request.run, _MOMENTS[moment])

    def _pick(self, request: Request) -> Harm | None:
        share = self.harms * (_MORE_AT_THE_END if request.run is not None else 1)
        if self.calm.is_set() or self.random.random() > share:
            return None
        harm = self.random.choice(list(Harm))
        self.seen.meet(harm, self._touched(request))
        return harm

    def _touched(self, request: Request) -> list[Phase]:
        """Of the request's own run; a node's call for work touches those that wait to be claimed."""
        if request.run is not None:
            phase = self.phases.of(request.run)
            return [phase] if phase is not None and phase is not Phase.OVER else []
        waits = request.path.endswith("/node/work") and Phase.BEFORE_CLAIM in self.phases.now().values()
        return [Phase.BEFORE_CLAIM] if waits else []

    # --- work --------------------------------------------------------------------------------------------

    def work(self, runs: int, hands: int) -> None:
        """So many runs, so many tasks at a time. Returns when all are told, or were given up."""
        self._left = runs
        threads = [threading.Thread(target=self._keep_asking, name=f"hand {n}", daemon=True) for n in range(hands)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _keep_asking(self) -> None:
        client = self._patient(self.world.client)
        while (name := self._take()) is not None:
            try:
                self._ask(client, name)
            except SkerryError:
                with self.seen.lock:
                    self.seen.unasked += 1

    def _patient(self, call: Callable[[], Any]) -> Any:
        while True:
            with contextlib.suppress(SkerryError):
                return call()
            time.sleep(0.5)

    def _take(self) -> str | None:
        with self._lock:
            if self._left <= 0:
                return None
            self._left -= 1
            self._number += 1
            return f"task {self._number}"

    def _ask(self, client: Any, name: str) -> None:
        organizations = self.world.organizations
        target = self.random.choice(organizations)
        size = self.random.choice([10, 10, 200_000])
        seconds = self.random.choice([0.0, 0.3, 1.0])
        kwargs: dict[str, Any] = {"canary": self.canary, "seconds": seconds}
        if self.random.random() < 0.1:
            method, kwargs = "ask_child", {**kwargs, "organization": self.random.choice(organizations)}
            with self._lock:
                self._left -= 1
        else:
            method, kwargs = "count", {**kwargs, "size": size}
        task = client.task.create(
            organizations=[target],
            name=name,
            image=IMAGE,
            collaboration=self.world.federation.facts["collaboration"]["id"],
            input_={"method": method, "kwargs": kwargs},
        )
        with self.seen.lock:
            self.seen.acknowledged.append(Acknowledged(task["id"], name, 1))
        for run in self._patient(task.runs):
            self.phases.reach(run["id"], Phase.BEFORE_CLAIM)
        if self.random.random() < 0.05:
            self._kill(task)
        for _ in range(2):
            self._hear_result(task)

    def _kill(self, task: Any) -> None:
        """At a moment that may be before, in or after anything else."""
        time.sleep(self.random.uniform(0, 2.5))
        with contextlib.suppress(SkerryError):
            task.kill()
        with self.seen.lock:
            self.seen.faults["kill by a user"] += 1

    def _hear_result(self, task: Any) -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            with contextlib.suppress(SkerryError):
                task.wait(timeout=60)
                [run] = task.runs()
                status = str(run["status"])
                found = digest(task.results()[0]) if status == "completed" else None
                self._told(Told(run["id"], status, found))
                return
            time.sleep(0.2)

    def _told(self, told: Told) -> None:
        self.phases.reach(told.run, Phase.OVER)
        with self.seen.lock:
            self.seen.told.append(told)

    # --- harm --------------------------------------------------------------------------------------------

    def strike_until(self, over: threading.Event, kinds: Sequence[str]) -> None:
        """Always at the cell of the table that was met least often."""
        while not over.is_set():
            fault = min(kinds, key=lambda kind: (self._least(kind), self.random.random()))
            phase = min(PHASES, key=lambda phase: (self.seen.met[fault, phase], self.random.random()))
            self._lie_in_wait(fault, phase, over)
            self._await_recovery(over)

    def _least(self, fault: str) -> int:
        return min(self.seen.met[fault, phase] for phase in PHASES)

    def _lie_in_wait(self, fault: str, phase: Phase, over: threading.Event) -> None:
        node = self.random.choice(self.world.node_names) if fault.rpartition(" ")[2] in {"node", "proxy"} else None
        struck = threading.Event()

        def strike() -> None:
            try:
                self._strike(fault, node)
            finally:
                struck.set()

        self.phases.set_trap(phase, node if phase is not Phase.BEFORE_CLAIM else None, strike)
        if not over.wait(0) and not struck.wait(3.0) and self.phases.lift_trap():
            return
        struck.wait(30)

    def _strike(self, fault: str, node: str | None) -> None:
        """Counts the runs that were in the same phase before and after it."""
        server, before = self.random.choice(self.world.server_names), self.phases.now(node)
        deeds: dict[str, Callable[[], object]] = {
            "server": lambda: self.world.kill(server),
            "node": lambda: self.world.kill(str(node)),
            "proxy": lambda: self.world.kill_proxy(str(node)),
            "engine": self._kill_engine,
            "machine": self._kill_machine,
            "postgresql": self._kill_database,
            "cut towards server": lambda: self._cut("server"),
            "cut towards client": lambda: self._cut("client"),
            "no room at server": lambda: self._mend_later(self.world.take_room(server)),
            "no room at node": lambda: self._mend_later(self.world.take_room(str(node))),
        }
        if deeds[fault]() is False:
            return
        after = self.phases.now(node)
        self.seen.meet(fault, [phase for run, phase in after.items() if before.get(run) == phase])

    def _kill_engine(self) -> None:
        assert self.engine is not None
        self.engine.kill()
        self._mend_later(self.engine.start)

    def _kill_machine(self) -> None:
        """All nodes, their algorithms and the engine, as far as one machine can play several at once."""
        assert self.engine is not None
        for name in self.world.node_names:
            self.world.kill(name)
        self.engine.kill_containers()
        self._kill_engine()

    def _kill_database(self) -> None:
        self.world.database.kill()
        self._mend_later(self.world.database.start)

    def _cut(self, towards: str) -> None:
        self.world.to_nodes.cut_towards = towards
        self._mend_later(self._join_again)

    def _mend_later(self, mend: Callable[[], None]) -> None:
        timer = threading.Timer(self.random.uniform(0.5, 3.0), mend)
        timer.daemon = True
        timer.start()
        self._mending.append(timer)

    def _join_again(self) -> None:
        self.world.to_nodes.cut_towards = None

    def _await_recovery(self, over: threading.Event) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end and not over.is_set():
            parts = all(self.world.has_recovered(name) for name in self.world.parts)
            if parts and self.world.database.alive() and (self.engine is None or self.engine.answers()):
                break
            time.sleep(0.05)
        over.wait(self.random.uniform(0, 0.5))

    # --- the end -----------------------------------------------------------------------------------------

    def settle(self, seconds: float) -> None:
        """Nothing is broken any more; until all runs that there are have ended and nodes have cleaned up."""
        self.calm.set()
        for timer in self._mending:
            timer.join()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.world.is_quiet():
            time.sleep(0.2)

    def read_history(self) -> History:
        return self.world.read_history(
            self.canary, acknowledged=tuple(self.seen.acknowledged), told=tuple(self.seen.told)
        )


def table(seen: Ledger, kinds: Sequence[str]) -> Iterator[str]:
    """How often each fault met a run in each phase."""
    yield f"{'':<20}" + "".join(f"{phase.words:>18}" for phase in PHASES) + f"{'struck':>10}"
    for kind in kinds:
        cells = "".join(f"{seen.met[kind, phase]:>18}" for phase in PHASES)
        yield f"{kind:<20}{cells}{seen.faults[kind]:>10}"


@contextmanager
def harm(driver: Driver, kinds: Sequence[str]) -> Iterator[None]:
    """Strikes in a thread of its own as long as the block lasts."""
    over = threading.Event()
    thread = threading.Thread(target=driver.strike_until, args=(over, kinds), name="strikes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
