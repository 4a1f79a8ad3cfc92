"""``make faults``: RUNS faulted runs (2,000), on an engine of the suite's own; the table, and how many violations.

WORLDS: sqlite (one server process) and postgresql (two, which take turns); they share the runs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from clusters import Cluster, cluster
from fault_driver import CUTS, KILLS, ROOM, Driver, harm, table
from fault_history import History, check
from fault_proxy import Harm
from fault_world import IMAGE, SKERRY, Engine, World, running

ROOT = Path(__file__).parent.parent.parent
HANDS = 18


def main() -> int:
    runs, seed = int(os.environ.get("RUNS", "2000")), int(os.environ.get("SEED", str(secrets.randbelow(10**6))))
    worlds = os.environ.get("WORLDS", "sqlite,postgresql").split(",")
    engine = Engine(Path("/var/lib/skerry/faults-engine"), Path("/run/skerry-faults"))
    engine.start()
    os.environ["DOCKER_HOST"] = engine.host
    try:
        engine.clear()
        build()
        return report(runs, seed, worlds, engine)
    finally:
        engine.start()
        engine.clear()
        engine.stop()


def build() -> None:
    subprocess.run([ROOT / "docker" / "images.sh"], check=True)
    folder = ROOT / "tests" / "algorithms" / "tally"
    subprocess.run([SKERRY, "algorithm", "build", folder, "--tag", IMAGE], check=True, stdout=subprocess.DEVNULL)


@dataclass
class Postgresql:
    """A database in a cluster of the suite's own."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        return self.cluster.url(self.name)

    def rows(self, _: Path, query: str) -> list[tuple[Any, ...]]:
        with self.cluster.connect(self.name) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload]

    def folders(self) -> list[Path]:
        return [self.cluster.folder]

    def kill(self) -> None:
        self.cluster.stop("immediate")

    def alive(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.cluster.connect(self.name):
            return True
        return False

    def start(self) -> None:
        """It may be busy with its recovery, or have been started already."""
        while not self.alive():
            with contextlib.suppress(subprocess.CalledProcessError):
                self.cluster.start()


@contextmanager
def opened(which: str) -> Iterator[World]:
    name, say = f"faults-{secrets.token_hex(3)}", lambda line: print(f"faults: {line}", flush=True)
    if which == "sqlite":
        with running(name, say=say) as world:
            yield world
        return
    with cluster(Path("/usr/lib/postgresql/15/bin"), durable=True) as made:
        database = Postgresql(made, made.make_database())
        with running(name, say=say, replicas=2, database=database) as world:
            yield world


def go(which: str, runs: int, seed: int, engine: Engine) -> tuple[int, int, int]:
    """The numbers of runs, faults and violations in one world."""
    canary, kinds = f"canary{secrets.token_hex(8)}", [*KILLS, *CUTS, *ROOM]
    if which == "postgresql":
        kinds.append("postgresql")
    with opened(which) as world:
        driver = Driver(world, engine, canary=canary, harms=0.02, seed=seed)
        with harm(driver, kinds):
            driver.work(runs, HANDS)
        driver.settle(120)
        world.stop_parts()
        history = driver.read_history()
        violations = check(history)
        if violations:
            keep(world, which)
    tell(which, driver, history, kinds)
    for violation in violations:
        print(f"violation: {violation}")
    return len(history.runs), driver.seen.faults.total(), len(violations)


def keep(world: World, which: str) -> None:
    """The logs and audit journals of all parts, to find out why."""
    kept = ROOT / "build" / "faults" / which
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(world.folder.logs, kept)
    for name in world.node_names:
        shutil.copytree(world.folder.node(int(name[5:])) / "state" / "audit", kept / name)
    print(f"faults: the logs of all parts are in {kept}")


def tell(which: str, driver: Driver, history: History, kinds: list[str]) -> None:
    print(f"faults: {which}: how often each fault met a run in each phase")
    for line in table(driver.seen, [*kinds, *Harm]):
        print(line)
    started = {start.run for start in history.starts}
    unsure = sum(row.state == "start_failed" and row.run in started for row in history.runs)
    print(f"faults: endings {dict(Counter(row.state for row in history.runs))}")
    print(f"faults: {unsure} runs ended start_failed though their algorithm had started")
    print(f"faults: {driver.seen.unasked} tasks were not acknowledged to their asker")


def report(runs: int, seed: int, worlds: list[str], engine: Engine) -> int:
    began = time.monotonic()
    print(f"faults: seed {seed}", flush=True)
    totals = [go(which, runs // len(worlds), seed, engine) for which in worlds]
    done, faults, violations = (sum(numbers) for numbers in zip(*totals, strict=True))
    print(f"faults: {time.monotonic() - began:.0f} s")
    print(f"faults: {done} runs, {faults} faults, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
