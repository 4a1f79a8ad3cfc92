"""A bounded sample of what ``make faults`` does, on the engine that all tests use, which therefore stays alive."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pytest
from fault_driver import Driver, harm
from fault_history import check
from fault_strikes import WITHOUT_ENGINE
from fault_table import PHASES, Ledger, Phase, table
from fault_world import IMAGE, SKERRY, running

pytestmark = pytest.mark.acceptance
RUNS, SECONDS = 16, 300


@pytest.fixture(scope="module")
def tally_image(images: object) -> None:
    folder = Path(__file__).parent.parent / "algorithms" / "tally"
    subprocess.run([SKERRY, "algorithm", "build", folder, "--tag", IMAGE], check=True, capture_output=True)


@pytest.mark.timeout(2 * SECONDS)
def test_a_sample_of_faults(tally_image: None, own_machines: object) -> None:
    with running(f"test-{secrets.token_hex(4)}", count=2) as world:
        driver = Driver(world, None, WITHOUT_ENGINE, canary=f"canary{secrets.token_hex(8)}", seed=7, seconds=SECONDS)
        with harm(driver):
            driver.work(RUNS, 8)
        driver.settle(60)
        world.stop_parts()
        history = driver.read_history()
    print(*table(driver.seen.met, driver.seen.faults, WITHOUT_ENGINE), sep="\n")
    assert driver.troubles == []
    assert driver.seen.faults.total() > 0
    # A child that the driver counts ahead is never made where its parent was ended first.
    assert len(history.runs) >= len(history.acknowledged) >= RUNS // 2 - driver.seen.unasked
    assert len(history.steps) >= len(history.runs)
    assert check(history) == []


@pytest.mark.unit
def test_the_table_has_each_phase_and_each_fault() -> None:
    seen = Ledger()
    seen.meet("node", {Phase.RUNNING: 2, Phase.CREATED: 1})
    head, *rows, few = table(seen.met, seen.faults, ("node", "proxy"))
    assert all(phase.words in head for phase in PHASES)
    assert rows[0].split() == ["node", "0", "0", "1", "0", "2", "0", "0", "0", "0", "1"]
    assert few.startswith("0 cells were met 5 times or more, 18 were not: node x before claim, ")
