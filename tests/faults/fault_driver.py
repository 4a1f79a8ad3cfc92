"""Runs tasks while parts are killed, cut off and lied to; counts in which phase each fault really met a run."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fault_history import Acknowledged, History, Told
from fault_proxy import Request
from fault_strikes import AT_ONE_NODE, Strikes
from fault_table import PHASES, Ledger, Phase, Phases
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
_CHOOSY_SECONDS = 1.5
"""For so long the driver waits for one of the cells that were met least often; then any will do."""
_BREATH_RUNS, _BREATH_SECONDS = 2, 3.0
"""Between two faults so many runs come to their end, or so much time passes: else nothing would ever be done."""


class Driver:
    """``kinds``: the faults that there are in this world."""

    def __init__(self, world: World, engine: Engine | None, kinds: Sequence[str], *, canary: str, seed: int) -> None:
        self.world = world
        self.engine = engine
        self.kinds = kinds
        self.canary = canary
        self.random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.strikes = Strikes(world, engine, self.random)
        self.phases = Phases()
        self.seen = Ledger()
        self._left = 0
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
        if request.run is not None and (moment == "half" or request.ends):
            self.phases.reach(request.run, _MOMENTS[moment])

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
                self._patient(lambda: self.world.log_in_again(client))

    def _patient(self, call: Callable[[], Any]) -> Any:
        while True:
            with contextlib.suppress(SkerryError):
                return call()
            time.sleep(0.5)

    def _logged_in(self, client: UserClient, call: Callable[[], Any]) -> Any:
        """Patiently; a token from before the server's clock was set is not taken again, however often it is shown."""
        while True:
            with contextlib.suppress(SkerryError):
                try:
                    return call()
                except AuthenticationError:
                    self.world.log_in_again(client)
            time.sleep(0.5)

    def _take(self) -> str | None:
        with self._lock:
            if self._left <= 0:
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
        end = time.monotonic() + 240
        while time.monotonic() < end:
            try:
                task.wait(timeout=60)
                [run] = task.runs()
                status = str(run["status"])
                found = digest(task.results()[0]) if status == "completed" else None
            except AuthenticationError:
                self._patient(lambda: self.world.log_in_again(client))
            except SkerryError:
                time.sleep(0.2)
            else:
                self._told(Told(run["id"], status, found))
                return

    def _told(self, told: Told) -> None:
        self.phases.reach(told.run, Phase.OVER)
        with self.seen.lock:
            self.seen.told.append(told)

    # --- harm --------------------------------------------------------------------------------------------

    def strike_until(self, over: threading.Event) -> None:
        """Always at one of the cells of the table that were met least often."""
        while not over.is_set():
            self._lie_in_wait(over)
            self._await_recovery(over)
            self._breathe(over)

    def _lie_in_wait(self, over: threading.Event) -> None:
        struck = threading.Event()
        self.phases.set_trap(self._trap(struck))
        while not over.is_set() and not struck.wait(0.1):
            pass
        if not self.phases.lift_trap():
            struck.wait(30)

    def _trap(self, struck: threading.Event) -> Callable[[int, Phase], Callable[[], None] | None]:
        since, least = time.monotonic(), min(self.seen.emptiest(self.kinds, phase)[0] for phase in PHASES)

        def trap(run: int, phase: Phase) -> Callable[[], None] | None:
            if phase is Phase.OVER:
                return None
            often, fault = self.seen.emptiest(self._kinds(), phase)
            if often > least and time.monotonic() - since < _CHOOSY_SECONDS:
                return None
            return lambda: self._strike(fault, self.phases.node_of.get(run, self.world.node_names[0]), struck)

        return trap

    def _kinds(self) -> Sequence[str]:
        """In another order each time: of those that are equal, any may be the first."""
        return self.random.sample(self.kinds, len(self.kinds))

    def _strike(self, fault: str, node: str, struck: threading.Event) -> None:
        """The nodes stand still meanwhile, so that the phases that are counted are those that it met."""
        nodes = [node] if fault in AT_ONE_NODE else self.world.node_names
        try:
            with self.world.frozen(nodes):
                phases = self.phases.now(nodes)
                if self.strikes.strike(fault, node):
                    self.seen.meet(fault, phases)
        finally:
            struck.set()

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
        end, enough = time.monotonic() + _BREATH_SECONDS, self.phases.ended + _BREATH_RUNS
        while time.monotonic() < end and self.phases.ended < enough and not over.wait(0.05):
            pass

    # --- the end -----------------------------------------------------------------------------------------

    def settle(self, seconds: float) -> None:
        """Nothing is broken any more; until all runs that there are have ended and nodes have cleaned up."""
        self.strikes.mend()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.world.is_quiet():
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
        thread.join()
