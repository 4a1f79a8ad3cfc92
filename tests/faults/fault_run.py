"""``make faults``: RUNS faulted runs (2,000), on an engine of the suite's own; the table, and how many violations.

Up to a quarter more are made while the table lacks something. WORLDS: sqlite (one server process) and postgresql (two
behind HAProxy); they share the runs. SEED: for the driver's choices. MINUTES: the suite ends by then, whatever hangs
(30 for 2,000 runs).
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from clusters import Cluster, cluster
from fault_driver import Driver, harm
from fault_history import History, check
from fault_strikes import EVERYTHING, possible
from fault_table import Cell, Ledger, table
from fault_wire import Wire
from fault_world import IMAGE, SKERRY, Engine, World, running

ROOT = Path(__file__).parent.parent.parent
HANDS = 24
_FOUNDING_SECONDS, _RUN_SECONDS = 300.0, 0.75
_SETTLING_SECONDS, _ENDING_SECONDS = 90.0, 30.0
"""Of its time a world needs this for what is open when nothing more is asked, and to read what was recorded."""
_HANGING_SECONDS = 600.0
"""So long after its time the suite is given up, wherever it hangs."""


def main() -> int:
    runs, seed = int(os.environ.get("RUNS", "2000")), int(os.environ.get("SEED", str(secrets.randbelow(10**6))))
    worlds = os.environ.get("WORLDS", "sqlite,postgresql").split(",")
    seconds = 60 * float(os.environ.get("MINUTES", "0")) or _FOUNDING_SECONDS + _RUN_SECONDS * runs
    end = time.monotonic() + seconds
    give_up_after(seconds + _HANGING_SECONDS)
    engine = Engine(Path("/var/lib/skerry/faults-engine"), Path("/run/skerry-faults"))
    engine.start()
    os.environ["DOCKER_HOST"] = engine.host
    try:
        engine.clear()
        build()
        return report(runs, seed, worlds, engine, end)
    finally:
        signal.alarm(0)
        engine.start()
        engine.clear()
        engine.stop()


def give_up_after(seconds: float) -> None:
    """For what hangs so that not even its own bound is seen: shows where each thread stands, and clears up."""

    def give_up(*_: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise TimeoutError(f"The suite hangs: it is not over after {seconds:.0f} s; above is where its threads stand.")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(math.ceil(seconds))


def build() -> None:
    subprocess.run([ROOT / "docker" / "images.sh"], check=True)
    folder = ROOT / "tests" / "algorithms" / "tally"
    subprocess.run([SKERRY, "algorithm", "build", folder, "--tag", IMAGE], check=True, stdout=subprocess.DEVNULL)


@dataclass
class Postgresql:
    """A database in a cluster of the suite's own, at the far end of a wire."""

    cluster: Cluster
    name: str
    wire: Wire

    @property
    def url(self) -> str:
        return self.cluster.url(self.name).replace(f":{self.cluster.port}/", f":{self.wire.port}/")

    def rows(self, _: Path, query: str) -> list[tuple[Any, ...]]:
        with self.cluster.connect(self.name) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload]

    def folders(self) -> list[Path]:
        return [self.cluster.folder]

    def end(self, how: str) -> None:
        self.cluster.stop(how)

    def pause(self) -> Callable[[], None]:
        pids = self._pids()
        _send(pids, signal.SIGSTOP)
        return lambda: _send(pids, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """PostgreSQL's first process and those that it made."""
        first = int((self.cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
        made = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, made)]

    def cut(self) -> Callable[[], None]:
        self.wire.cut()
        return self.wire.join

    def alive(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.cluster.connect(self.name):
            return True
        return False

    def start(self) -> None:
        """It may be busy with its recovery, or have been started already."""
        while not self.alive():
            with contextlib.suppress(subprocess.CalledProcessError):
                self.cluster.start()


def _send(pids: Sequence[int], signal_: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_)


@contextmanager
def opened(which: str, engine: Engine) -> Iterator[World]:
    name, say = f"faults-{secrets.token_hex(3)}", lambda line: print(f"faults: {line}", flush=True)
    with ExitStack() as ended:
        options: dict[str, Any] = {"say": say, "engine": engine.host_for_nodes}
        if which == "postgresql":
            made = ended.enter_context(cluster(Path("/usr/lib/postgresql/15/bin"), durable=True))
            wire = Wire.to_port(lambda: made.port)
            ended.callback(wire.close)
            options |= {"replicas": 2, "database": Postgresql(made, made.make_database(), wire)}
        yield ended.enter_context(running(name, **options))


@dataclass(frozen=True)
class Seen:
    """What was seen in one world. ``troubles``: why it was less than was to be seen."""

    ledger: Ledger
    runs: int
    violations: int
    troubles: Sequence[str]


def go(which: str, runs: int, seed: int, engine: Engine, *, before: Mapping[Cell, int], end: float) -> Seen:
    with opened(which, engine) as world, kept_when_broken(world, which):
        seconds = end - time.monotonic() - _SETTLING_SECONDS - _ENDING_SECONDS
        canary = f"canary{secrets.token_hex(8)}"
        driver = Driver(world, engine, possible(which), canary=canary, seed=seed, seconds=seconds, before=before)
        with harm(driver):
            driver.work(runs, HANDS, more=runs // 4)
        driver.settle(_SETTLING_SECONDS)
        world.stop_parts()
        history = driver.read_history()
        violations = check(history)
        if violations or driver.troubles:
            keep(world, which, history)
    tell(which, driver.seen, history)
    for trouble in driver.troubles:
        print(f"faults: {which}: {trouble}")
    for violation in violations:
        print(f"violation: {violation}")
    return Seen(driver.seen, len(history.runs), len(violations), driver.troubles)


@contextmanager
def kept_when_broken(world: World, which: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        keep(world, which, History())
        raise


def keep(world: World, which: str, history: History) -> None:
    """The logs and audit journals of all parts, to find out why."""
    kept = ROOT / "build" / "faults" / which
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(world.folder.logs, kept)
    for name in world.node_names:
        shutil.copytree(world.folder.node(int(name[5:])) / "state" / "audit", kept / name)
    (kept / "history.json").write_text(json.dumps(asdict(history), indent=1))
    print(f"faults: the logs of all parts and what was recorded are in {kept}")


def tell(which: str, seen: Ledger, history: History) -> None:
    started = {start.run for start in history.starts}
    unsure = sum(row.state == "start_failed" and row.run in started for row in history.runs)
    print(f"faults: {which}: {len(history.runs)} runs, {seen.faults.total()} faults")
    print(f"faults: {which}: endings {dict(Counter(row.state for row in history.runs))}")
    print(f"faults: {which}: {unsure} runs ended start_failed though their algorithm had started")
    print(f"faults: {which}: {seen.unasked} tasks were given up by their asker", flush=True)


def report(runs: int, seed: int, worlds: list[str], engine: Engine, end: float) -> int:
    began = time.monotonic()
    print(f"faults: seed {seed}", flush=True)
    seen, met = list[Seen](), Counter[Cell]()
    for number, which in enumerate(worlds):
        share = (end - time.monotonic()) / (len(worlds) - number)
        seen.append(go(which, runs // len(worlds), seed, engine, before=met, end=time.monotonic() + share))
        met += seen[-1].ledger.met
    struck = sum((one.ledger.faults for one in seen), Counter())
    print("faults: how often each fault met a run in each phase")
    kinds = [kind for kind in EVERYTHING if any(kind in possible(which) for which in worlds)]
    for line in table(met, struck, kinds):
        print(line)
    for kind in EVERYTHING:
        if missing := [which for which in worlds if kind not in possible(which)]:
            print(f"faults: {kind}: can't be on {', '.join(missing)}, whose database is the server's own file")
    print(f"faults: {time.monotonic() - began:.0f} s")
    violations = sum(one.violations for one in seen)
    print(f"faults: {sum(one.runs for one in seen)} runs, {struck.total()} faults, {violations} violations")
    return 1 if violations or any(one.troubles for one in seen) else 0


if __name__ == "__main__":
    sys.exit(main())
