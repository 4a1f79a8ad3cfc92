"""Runs tasks while parts are killed, cut off and lied to; counts in which phase each fault really met a run."""

from __future__ import annotations

import contextlib
import faulthandler
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fault_history import Acknowledged, History, Told
from fault_holds import Holds
from fault_proxy import Request
from fault_strikes import AT_ONE_NODE, Strikes, seconds_until_noticed
from fault_table import PHASES, Cell, Ledger, Phase, Phases
from fault_world import IMAGE, Engine, World, digest

from skerry import UserClient
from skerry.errors import AuthenticationError, SkerryError

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
_MOMENTS = {"head": Phase.ENCRYPTED, "half": Phase.HALF_UPLOADED, "answered": Phase.NOT_ACKNOWLEDGED}
_CHOOSY = ((10, 2.0), (1, 2.0))
"""A strike is to be counted for so many runs in phases that it lacks, or fewer after so long; then any will do."""
_LAST_ANSWER_SECONDS, _LAST_STRIKE_SECONDS = 90.0, 240.0
_PATIENCE_SECONDS = 240.0
"""So long a user waits for a result, whatever is broken meanwhile."""
_BREATH, _LONG_BREATH = (2, 1.0), (8, 6.0)
"""Between two strikes so many runs come to their end, or so many seconds pass: else nothing would ever be done.

The long one is for when the table is full.
"""


class _Blow(NamedTuple):
    """The greatest is the best: what gains most, then what struck least often, then any."""

    gain: int
    seldom: int
    chance: float
    fault: str
    nodes: Sequence[str]


def _gain(blows: Sequence[_Blow]) -> int:
    return sum(blow.gain for blow in blows)


class TimeIsOver(Exception):
    """Nothing more is asked, and nobody waits any longer."""


class Driver:
    """``kinds``: the faults that there are in this world. ``before``: how often they met which phase in others.

    ``seconds``: after so long nothing is asked any more, whatever is left. ``troubles``: sentences on why this was
    less than was to be done.
    """

    def __init__(
        self,
        world: World,
        engine: Engine | None,
        kinds: Sequence[str],
        *,
        canary: str,
        seed: int,
        seconds: float,
        before: Mapping[Cell, int] | None = None,
    ) -> None:
        self.world = world
        self.engine = engine
        self.kinds = kinds
        self.canary = canary
        self.random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.strikes = Strikes(world, engine, self.random)
        self.phases = Phases()
        self.holds = Holds()
        self.seen = Ledger(before or {})
        self.troubles: list[str] = []
        self._left = self._more = 0
        self._end = time.monotonic() + seconds
        self._number = 0
        self._lock = threading.Lock()
        world.heard = self._hear
        for way in (world.to_nodes, world.to_clients):
            way.notice = self._notice

    # --- what is heard -----------------------------------------------------------------------------------

    def _hear(self, node: str, what: str, run: int) -> None:
        if what in _HEARD:
            self.phases.reach(run, _HEARD[what], node)

    def _notice(self, moment: str, request: Request) -> None:
        if request.run is None or not (moment == "half" or request.ends):
            return
        phase = _MOMENTS[moment]
        self.phases.reach(request.run, phase)
        if self.phases.is_in(request.run, phase):
            self.holds.stay(self.phases.node_of.get(request.run, ""), phase)

    # --- work --------------------------------------------------------------------------------------------

    def work(self, runs: int, hands: int, more: int = 0) -> None:
        """So many runs, so many tasks at a time, and at most so many more while the table lacks something.

        Returns when all are told, were given up, or the time is over.
        """
        self._left, self._more = runs, more
        threads = [threading.Thread(target=self._keep_asking, name=f"hand {n}", daemon=True) for n in range(hands)]
        for thread in threads:
            thread.start()
        self.join(threads, self._seconds_left() + _LAST_ANSWER_SECONDS)
        if self._left > 0:
            self.troubles.append(f"the time was over, and {self._left} runs had never been asked for")

    def join(self, threads: Sequence[threading.Thread], seconds: float) -> None:
        """Shows where all threads stand when some of these don't end."""
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
        if hung := [thread.name for thread in threads if thread.is_alive()]:
            self.troubles.append(f"did not end: {', '.join(hung)}")
            faulthandler.dump_traceback(all_threads=True)

    def _keep_asking(self) -> None:
        with contextlib.suppress(TimeIsOver):
            client = self._patient(self.world.client)
            while (name := self._take()) is not None:
                try:
                    self._ask(client, name)
                except SkerryError:
                    with self.seen.lock:
                        self.seen.unasked += 1
                    self._patient(lambda: self.world.log_in_again(client))

    def _seconds_left(self) -> float:
        return max(self._end - time.monotonic(), 0)

    def _patient(self, call: Callable[[], Any]) -> Any:
        """Raises TimeIsOver."""
        while self._seconds_left():
            with contextlib.suppress(SkerryError):
                return call()
            time.sleep(0.5)
        raise TimeIsOver

    def _logged_in(self, client: UserClient, call: Callable[[], Any]) -> Any:
        """Patiently; a token from before the server's clock was set is not taken again, however often it is shown."""

        def log_in_and_call() -> Any:
            try:
                return call()
            except AuthenticationError:
                self.world.log_in_again(client)
                raise

        return self._patient(log_in_and_call)

    @property
    def _is_full(self) -> bool:
        """Whether each fault met each phase often enough."""
        return self.seen.poorest(self.kinds, PHASES) is None

    def _take(self) -> str | None:
        with self._lock:
            if (self._left <= 0 and (self._left <= -self._more or self._is_full)) or not self._seconds_left():
                return None
            self._left -= 1
            self._number += 1
            return f"task {self._number}"

    def _ask(self, client: UserClient, name: str) -> None:
        organizations = self.world.organizations
        target = self.random.choice(organizations)
        size = self.random.choice([10, 10, 200_000])
        seconds = self.random.choice([0.0, 0.3, 1.0])
        kwargs: dict[str, Any] = {"canary": self.canary, "seconds": seconds}
        if self.random.random() < 0.1:
            child, *then = self.random.choices(organizations, k=self.random.choice([1, 1, 2]))
            method, kwargs = "ask_child", {**kwargs, "organization": child, "then": then}
            with self._lock:
                self._left -= 1 + len(then)
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
        for run in self._logged_in(client, task.runs):
            self.phases.reach(run["id"], Phase.BEFORE_CLAIM, self.world.node_of[target])
        if self.random.random() < 0.05:
            self._kill(task)
        for _ in range(2):
            self._hear_result(client, task)

    def _kill(self, task: Any) -> None:
        """At a moment that may be before, in or after anything else."""
        time.sleep(self.random.uniform(0, 2.5))
        with contextlib.suppress(SkerryError):
            task.kill()
        with self.seen.lock:
            self.seen.faults["kill by a user"] += 1

    def _hear_result(self, client: UserClient, task: Any) -> None:
        end = time.monotonic() + min(_PATIENCE_SECONDS, self._seconds_left())
        obstacle: Exception | None = None
        while (left := end - time.monotonic()) > 0:
            try:
                task.wait(timeout=min(60, left), progress=False)
                [run] = task.runs()
                status = str(run["status"])
                found = digest(task.results()[0]) if status == "completed" else None
            except AuthenticationError:
                self._patient(lambda: self.world.log_in_again(client))
            except SkerryError as error:
                obstacle = error
                time.sleep(0.2)
            else:
                self._told(Told(run["id"], status, found))
                return
        self.troubles.append(f"nobody was told how task {task['id']} ended: {obstacle}")

    def _told(self, told: Told) -> None:
        self.phases.reach(told.run, Phase.OVER)
        with self.seen.lock:
            self.seen.told.append(told)

    # --- harm --------------------------------------------------------------------------------------------

    def strike_until(self, over: threading.Event) -> None:
        """Always with the fault that lacks most of the phases in which runs are."""
        try:
            while not over.is_set():
                self._strike_next(over)
                self._await_recovery(over)
                self._breathe(over)
        except Exception:
            self.troubles.append("the strikes broke off")
            raise
        finally:
            self.holds.keep(None, self.world.node_names)

    def _strike_next(self, over: threading.Event) -> None:
        """Runs that have come to one of the phases which last milliseconds stay there until it strikes."""
        for gain, seconds in _CHOOSY:
            if self.phases.wait_for(lambda gain=gain: over.is_set() or _gain(self._choose()) >= gain, seconds):
                break
        blows = self._choose()
        nodes = [node for blow in blows for node in blow.nodes]
        self._strike(blows, nodes)
        over.wait(max(seconds_until_noticed(blow.fault) for blow in blows))
        self.holds.keep(self.seen.poorest(self.kinds, _MOMENTS.values()), nodes)

    def _choose(self) -> list[_Blow]:
        """One for all nodes, or one of its own for each: what gains more, or else struck less often."""
        names = self.world.node_names
        of_one = [kind for kind in self.kinds if kind in AT_ONE_NODE]
        of_all = [kind for kind in self.kinds if kind not in AT_ONE_NODE]
        apart = [self._choose_of(of_one, [name]) for name in names] if of_one else []
        together = [self._choose_of(of_all, names)] if of_all else []
        return max([blows for blows in (together, apart) if blows], key=lambda blows: (_gain(blows), max(blows)))

    def _choose_of(self, kinds: Sequence[str], nodes: Sequence[str]) -> _Blow:
        there, seen = self.phases.now(nodes), self.seen
        return max(
            _Blow(seen.gain(kind, there), -seen.faults[kind], self.random.random(), kind, nodes) for kind in kinds
        )

    def _strike(self, blows: Sequence[_Blow], nodes: Sequence[str]) -> None:
        """The nodes stand still meanwhile, so that the phases that are counted are those that it met."""
        with self.world.frozen(nodes):
            for blow in blows:
                there = self.phases.now(blow.nodes)
                if self.strikes.strike(blow.fault, blow.nodes[0]):
                    self.seen.meet(blow.fault, there)

    def _await_recovery(self, over: threading.Event) -> None:
        """One node may still be starting: the next fault can meet it there."""
        end = time.monotonic() + 30
        while time.monotonic() < end and not over.wait(0.05):
            servers = all(self.world.has_recovered(name) for name in self.world.server_names)
            away = sum(not self.world.has_recovered(name) for name in self.world.node_names)
            engine = self.engine is None or self.engine.answers()
            if servers and away <= 1 and engine and self.strikes.mended and self.world.database.alive():
                return

    def _breathe(self, over: threading.Event) -> None:
        runs, seconds = _LONG_BREATH if self._is_full else _BREATH
        enough = self.phases.ended + runs
        self.phases.wait_for(lambda: over.is_set() or self.phases.ended >= enough, seconds)

    # --- the end -----------------------------------------------------------------------------------------

    def settle(self, seconds: float) -> None:
        """Nothing is broken any more; until all parts are back, all runs have ended and nodes have cleaned up."""
        self.strikes.mend()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (self.world.has_recovered_wholly and self.world.is_quiet()):
            time.sleep(0.2)

    def read_history(self) -> History:
        return self.world.read_history(
            self.canary, acknowledged=tuple(self.seen.acknowledged), told=tuple(self.seen.told)
        )


@contextmanager
def harm(driver: Driver) -> Iterator[None]:
    """Strikes in a thread of its own as long as the block lasts."""
    over = threading.Event()
    thread = threading.Thread(target=driver.strike_until, args=(over,), name="strikes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        driver.join([thread], _LAST_STRIKE_SECONDS)
