from __future__ import annotations

import errno
import threading
import time

import pytest

from skerry.probes import PROBES, Answer
from skerry_node.preflight import GVISOR_ANSWERS, Preflight, Problem, Report, judge
from skerry_node.sandbox import GVISOR

pytestmark = pytest.mark.unit

GOOD = {probe.name: str(probe.expected) for probe in PROBES}
BAD = Report((Problem("an algorithm can be root", "don't"),))
PATIENCE = 10.0


def test_answers_as_they_should_be() -> None:
    assert judge(GOOD, "runc").problems == ()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_wrong_answer_counts(probe) -> None:
    wrong = Answer.REFUSED if probe.expected == Answer.POSSIBLE else Answer.POSSIBLE
    [problem] = judge({**GOOD, probe.name: str(wrong)}, "runc").problems
    assert f"({probe.name})" in problem.sentence
    assert problem.remedy


def test_a_probe_that_breaks_or_is_missing_is_no_refusal() -> None:
    assert "fails" in judge({**GOOD, "kcore": "broken"}, "runc").problems[0].sentence
    less = {name: answer for name, answer in GOOD.items() if name != "kcore"}
    assert "another version" in judge(less, "runc").problems[0].sentence
    assert len(judge({}, "runc").problems) == len(PROBES)


def test_gvisors_own_answers_count_under_gvisor_only() -> None:
    answers = GOOD | {name: str(answer) for name, (answer, _) in GVISOR_ANSWERS.items()}
    assert judge(answers, GVISOR).problems == ()
    assert len(judge(answers, "runc").problems) == len(GVISOR_ANSWERS)


@pytest.fixture
def closing():
    event = threading.Event()
    yield event
    event.set()


def test_it_passes_once_it_holds_and_says_so(closing) -> None:
    changed = threading.Event()
    preflight = Preflight(lambda: judge(GOOD, "runc"), 3600, changed.set, closing)
    assert not preflight.passed
    preflight.start()
    assert changed.wait(PATIENCE)
    assert preflight.passed
    closing.set()
    preflight.join()


def test_it_fails_and_recovers(closing) -> None:
    reports = iter([judge(GOOD, "runc"), BAD, judge(GOOD, "runc")])
    seen: list[bool] = []
    over = threading.Event()

    def changed() -> None:
        seen.append(preflight.passed)
        if len(seen) == 3:
            closing.set()
            over.set()

    preflight = Preflight(lambda: next(reports), 0.01, changed, closing)
    preflight.start()
    assert over.wait(PATIENCE)
    preflight.join()
    assert seen == [True, False, True]


def test_it_goes_on_where_nobody_can_be_told(closing) -> None:
    """A full disk at the first try: the node would have refused all runs for ever."""
    changed, told = threading.Event(), list[Report]()

    def tell(report: Report) -> None:
        told.append(report)
        if len(told) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    reports = iter([BAD])
    preflight = Preflight(lambda: next(reports, judge(GOOD, "runc")), 0.01, changed.set, closing, tell)
    preflight.start()
    until(lambda: preflight.passed)
    closing.set()
    preflight.join()
    assert len(told) > 1


def test_what_could_not_be_told_is_tried_again_soon(closing, monkeypatch) -> None:
    monkeypatch.setattr("skerry_node.preflight._RETRY_SECONDS", 0.01)
    full, told = [OSError(errno.ENOSPC, "No space left on device")], threading.Event()

    def tell(_: Report) -> None:
        if full:
            raise full.pop()
        told.set()

    preflight = Preflight(lambda: judge(GOOD, "runc"), 3600, lambda: None, closing, tell)
    preflight.start()
    assert told.wait(PATIENCE)
    closing.set()
    preflight.join()


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_why_it_fails_is_in_the_log(closing, caplog) -> None:
    tried = threading.Event()

    def inspect() -> Report:
        if tried.is_set():
            closing.set()
        tried.set()
        return BAD

    preflight = Preflight(inspect, 0.01, lambda: None, closing)
    preflight.start()
    assert closing.wait(PATIENCE)
    preflight.join()
    assert "an algorithm can be root: don't" in caplog.text
    assert "takes no runs" in caplog.text
    assert not preflight.passed
