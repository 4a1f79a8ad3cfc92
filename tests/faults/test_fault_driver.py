"""How the driver chooses, holds runs for a strike, and comes to its end whatever hangs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fault_driver import Driver
from fault_holds import Holds
from fault_proxy import Request
from fault_table import GOAL, PHASES, Ledger, Phase, Phases

from skerry.errors import SkerryError

pytestmark = pytest.mark.unit
FINISH = Request("POST", "/api/skerry/run/7/finish", 10, 7, ends=True)


def make_driver(seconds: float = 30.0, **world: Any) -> Driver:
    ways = {"to_nodes": SimpleNamespace(), "to_clients": SimpleNamespace()}
    names = {"server_names": ["server"], "node_names": ["node 1", "node 2"]}
    return Driver(SimpleNamespace(**ways, **names, **world), None, ["delay"], canary="x", seed=1, seconds=seconds)  # type: ignore[arg-type]


def start(work: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, name="work", daemon=True)
    thread.start()
    return thread


def wait_until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_run_in_a_phase_that_was_met_often_enough_gains_nothing() -> None:
    seen = Ledger(before={("full", phase): GOAL for phase in PHASES})
    seen.meet("poor", dict.fromkeys(PHASES[1:], GOAL - 1))
    there = {PHASES[0]: 2 * GOAL, PHASES[1]: 2, PHASES[2]: 1}
    assert (seen.gain("poor", there), seen.gain("full", there)) == (GOAL + 1 + 1, 0)
    seen.meet("poor", dict.fromkeys(PHASES[2:], 1))
    assert seen.poorest(["poor", "full"], PHASES) is PHASES[0]
    assert seen.poorest(["poor", "full"], PHASES[1:]) is PHASES[1]
    assert seen.poorest(["full"], PHASES) is None


def test_a_step_of_a_run_wakes_who_waits_for_it() -> None:
    phases = Phases()
    met: list[bool] = []
    waiting = start(lambda: met.append(phases.wait_for(lambda: Phase.CREATED in phases.now(["node"]), 10)))
    phases.reach(1, Phase.AFTER_CLAIM, "node")
    phases.reach(1, Phase.CREATED)
    waiting.join(10)
    assert met == [True]
    assert not phases.wait_for(lambda: Phase.ENCRYPTED in phases.now(["node"]), 0.01)


def test_as_many_runs_as_are_wanted_are_held_until_the_strike() -> None:
    holds, gone = Holds(), Counter[str]()

    def pass_by(node: str, phase: Phase) -> None:
        holds.stay(node, phase)
        gone[node] += 1

    holds.keep(Phase.ENCRYPTED, ["one", "two", "three"])
    threads = [start(pass_by, node, Phase.ENCRYPTED) for node in ["one"] * 7 + ["two"]]
    threads.append(start(pass_by, "three", Phase.RUNNING))
    wait_until(lambda: gone["one"] == 3 and gone["three"])
    assert gone == {"one": 3, "three": 1}
    holds.keep(None, ["one"])
    wait_until(lambda: gone["one"] == 7)
    assert gone == {"one": 7, "three": 1}
    holds.keep(None, ["two"])
    for thread in threads:
        thread.join(5)
    assert gone == {"one": 7, "two": 1, "three": 1}
    pass_by("four", Phase.ENCRYPTED)


def test_a_run_is_held_only_in_the_phase_that_it_is_in() -> None:
    """One that is delivered again was farther already: it would not be counted where it is held."""
    driver = make_driver()
    driver.phases.reach(7, Phase.NOT_ACKNOWLEDGED, "node 1")
    driver.phases.reach(8, Phase.EXITED, "node 1")
    driver.holds.keep(Phase.ENCRYPTED, ["node 1"])
    again = start(driver._notice, "head", FINISH)
    again.join(5)
    assert not again.is_alive()
    first = start(driver._notice, "head", replace(FINISH, run=8))
    first.join(0.3)
    assert first.is_alive()
    driver.holds.keep(None, ["node 1"])
    first.join(5)
    assert not first.is_alive()


def test_the_fault_is_chosen_that_lacks_most_of_where_runs_are() -> None:
    driver = make_driver()
    driver.kinds = ["delay", "reset", "kill node"]
    places = [(Phase.CREATED, "node 1"), (Phase.CREATED, "node 2"), (Phase.EXITED, "node 2")]
    for run, (phase, node) in enumerate(places):
        driver.phases.reach(run, phase, node)
    driver.seen.meet("delay", {Phase.EXITED: GOAL})
    driver.seen.meet("kill node", {Phase.EXITED: GOAL})
    assert choose(driver) == [("reset", ["node 1", "node 2"], 3)]
    driver.seen.meet("reset", {Phase.CREATED: GOAL, Phase.EXITED: GOAL - 1})
    driver.seen.meet("delay", {Phase.CREATED: GOAL - 1})
    assert choose(driver) == [("kill node", ["node 1"], 1), ("kill node", ["node 2"], 1)]
    driver.seen.meet("delay", {Phase.CREATED: 1})
    driver.seen.meet("reset", {Phase.EXITED: 1})
    driver.seen.meet("kill node", {Phase.CREATED: GOAL})
    driver.seen.meet("reset", {})
    driver.seen.meet("delay", {})
    assert [fault for fault, *_ in choose(driver)] == ["kill node"] * 2, "it struck least often"


@pytest.mark.parametrize(
    ("kind", "nodes"), [("reset", [["node 1", "node 2"]]), ("kill node", [["node 1"], ["node 2"]])]
)
def test_all_faults_may_be_of_one_sort(kind: str, nodes: list[list[str]]) -> None:
    driver = make_driver()
    driver.kinds = [kind]
    assert choose(driver) == [(kind, where, 0) for where in nodes]


def choose(driver: Driver) -> list[tuple[str, Sequence[str], int]]:
    return [(blow.fault, blow.nodes, blow.gain) for blow in driver._choose()]


def test_more_is_asked_while_the_table_lacks_something() -> None:
    driver = make_driver()
    assert take(driver, left=2, more=3) == 5
    driver.seen.meet("delay", dict.fromkeys(PHASES, GOAL))
    assert take(driver, left=2, more=3) == 2


def take(driver: Driver, left: int, more: int) -> int:
    driver._left, driver._more = left, more
    return len(list(iter(driver._take, None)))


def test_strikes_are_rarer_when_the_table_is_full() -> None:
    driver = make_driver()
    driver.seen.meet("delay", dict.fromkeys(PHASES[1:], GOAL))
    breathe(driver, range(2))
    driver.seen.meet("delay", {PHASES[0]: GOAL})
    breathe(driver, range(2, 10))


def breathe(driver: Driver, runs: Sequence[int]) -> None:
    """Ends with the last of these runs, and not with the last but one."""
    breath = start(driver._breathe, threading.Event())
    time.sleep(0.1)
    for run in runs:
        breath.join(0.03)
        assert breath.is_alive()
        driver.phases.reach(run, Phase.OVER)
    breath.join(0.5)
    assert not breath.is_alive()


def test_a_world_that_never_answers_does_not_keep_the_driver() -> None:
    def away() -> None:
        raise SkerryError

    driver = make_driver(0.3, client=away)
    driver.work(3, 2)
    assert driver.troubles == ["the time was over, and 3 runs had never been asked for"]


def test_who_hangs_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    driver, end = make_driver(), threading.Event()
    driver.join([start(end.wait), start(str)], 0.1)
    end.set()
    assert driver.troubles == ["did not end: work"]
    assert "Thread 0x" in capfd.readouterr().err


def test_strikes_that_break_off_are_no_success() -> None:
    driver = make_driver()
    driver.kinds = []
    with pytest.raises(ValueError, match="empty"):
        driver.strike_until(threading.Event())
    assert driver.troubles == ["the strikes broke off"]
