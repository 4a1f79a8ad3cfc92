"""``make faults``: RUNS faulted runs (2,000), on an engine of the suite's own; the table, and how many violations."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from fault_driver import CUTS, KILLS, ROOM, Driver, harm, table
from fault_history import check
from fault_proxy import Harm
from fault_world import IMAGE, SKERRY, Engine, running

ROOT = Path(__file__).parent.parent.parent
HANDS = 18


def main() -> int:
    runs, seed = int(os.environ.get("RUNS", "2000")), int(os.environ.get("SEED", str(secrets.randbelow(10**6))))
    engine = Engine(Path("/var/lib/skerry/faults-engine"), Path("/run/skerry-faults"))
    engine.start()
    os.environ["DOCKER_HOST"] = engine.host
    try:
        engine.clear()
        build()
        return report(runs, seed, engine)
    finally:
        engine.start()
        engine.clear()
        engine.stop()


def build() -> None:
    subprocess.run([ROOT / "docker" / "images.sh"], check=True)
    folder = ROOT / "tests" / "algorithms" / "tally"
    subprocess.run([SKERRY, "algorithm", "build", folder, "--tag", IMAGE], check=True, stdout=subprocess.DEVNULL)


def report(runs: int, seed: int, engine: Engine) -> int:
    began, canary = time.monotonic(), f"canary{secrets.token_hex(8)}"
    print(f"faults: seed {seed}", flush=True)
    with running(f"faults-{secrets.token_hex(3)}", say=lambda line: print(f"faults: {line}", flush=True)) as world:
        driver = Driver(world, engine, canary=canary, harms=0.02, seed=seed)
        kinds = [*KILLS, *CUTS, *ROOM]
        with harm(driver, kinds):
            driver.work(runs, HANDS)
        driver.settle(120)
        world.stop_parts()
        history = driver.read_history()
    for line in table(driver.seen, [*kinds, *Harm]):
        print(line)
    endings: dict[str, int] = {}
    for row in history.runs:
        endings[row.state] = endings.get(row.state, 0) + 1
    print(f"faults: endings {endings}; {driver.seen.unasked} tasks were not acknowledged to their asker")
    started = {start.run for start in history.starts}
    unsure = sum(row.state == "start_failed" and row.run in started for row in history.runs)
    print(f"faults: {unsure} runs ended start_failed though their algorithm had started")
    violations = check(history)
    for violation in violations:
        print(f"violation: {violation}")
    print(f"faults: {time.monotonic() - began:.0f} s")
    print(f"faults: {len(history.runs)} runs, {driver.seen.faults.total()} faults, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
