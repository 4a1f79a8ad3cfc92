from __future__ import annotations

import sys
import types

import pytest

from skerry import outcomes, progress

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (None, ""),
        ("", ""),
        ("\n \n", ""),
        ("info > a\nlast line\n\n", "last line"),
        ("error > first\ninfo > x\nerror > what matters\nshutting down", "what matters"),
        ("x" * 600, "x" * 500 + "…"),
    ],
)
def test_last_words(log, words) -> None:
    assert outcomes.last_words(log) == words


@pytest.mark.parametrize(
    ("status", "failed"),
    [("completed", False), ("active", False), ("pending", False), ("crashed", True), ("a new word", True)],
)
def test_failed(status, failed) -> None:
    assert outcomes.failed(status) is failed


@pytest.mark.parametrize(
    ("status", "ended"),
    [("completed", True), ("crashed", True), ("active", False), ("pending", False), ("a new word", True)],
)
def test_ended(status, ended) -> None:
    assert outcomes.ended(status) is ended


def test_the_reason_stands_in_for_a_log() -> None:
    run = {"organization_id": 1, "status": "unknown error", "log": None, "reason": "the node was lost"}
    assert outcomes.lines([run]) == ["Organization 1: unknown error: the node was lost"]
    assert outcomes.lines([{**run, "reason": "unknown error"}]) == ["Organization 1: unknown error."]


def test_a_line_for_each_failed_run() -> None:
    runs = [
        {"organization_id": 1, "status": "completed", "log": "fine"},
        {"organization_id": 2, "status": "crashed", "log": "error > no such column\n"},
        {"organization_id": 3, "status": "killed by user", "log": None},
    ]
    assert outcomes.describe("Task 5", runs).splitlines() == [
        "Task 5 failed.",
        "Organization 2: crashed: no such column",
        "Organization 3: killed by user.",
    ]
    assert outcomes.describe("Task 5", runs[:2]) == "Task 5 failed. Organization 2: crashed: no such column"


def test_last_words_do_not_steer_the_terminal() -> None:
    assert outcomes.last_words("error > \x1b]0;owned\x07 \x1b[2Jé\tx") == "\ufffd]0;owned\ufffd \ufffd[2Jé\tx"


def test_progress_names_who_is_missing() -> None:
    runs = [
        {"organization_id": 1, "status": "completed", "node_online": False},
        {"organization_id": 2, "status": "crashed", "node_online": True},
        {"organization_id": 3, "status": "pending", "node_online": False},
        {"organization_id": 4, "status": "active", "node_online": True},
    ]
    assert progress.describe(runs) == "2 of 4 runs ended, 1 of them failed; offline: the node of organization 3"
    assert progress.describe(runs[:1]) == "1 of 1 runs ended"


def test_progress_names_who_takes_no_runs() -> None:
    run = {"organization_id": 1, "status": "pending", "node_online": True}
    refusing = {**run, "node_refuses": "sandbox"}
    words = "takes no runs, since its sandbox does not hold (the log of the node says why): the node of organization"
    assert progress.describe([run, refusing]) == f"0 of 2 runs ended; {words} 1"
    assert progress.describe([refusing, {**refusing, "organization_id": 4}]) == f"0 of 2 runs ended; {words} 1, 4"
    assert progress.describe([{**refusing, "status": "active"}]) == "0 of 1 runs ended"
    assert progress.describe([{**refusing, "node_refuses": "starting"}]) == "0 of 1 runs ended"
    assert progress.describe([{**refusing, "node_refuses": "an unheard-of reason"}]) == "0 of 1 runs ended"


def test_a_script_is_told_what_it_stands_still_for(capsys, monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr("skerry.progress.time.monotonic", lambda: now)
    run = {"organization_id": 3, "status": "pending", "node_online": True}
    with progress.showing("task 1", wanted=None) as show:
        show.runs([run])
        assert capsys.readouterr() == ("", "")
        show.runs([{**run, "node_refuses": "records"}])
        assert capsys.readouterr().err == (
            "task 1 waits, for 0 s so far; takes no runs, since it can't write its audit journal (the log of the node"
            " says why): the node of organization 3\n"
        )
        now += 59
        show.runs([{**run, "node_refuses": "records"}])
        assert capsys.readouterr().err == ""
        now += 1
        show.runs([{**run, "node_refuses": "records"}])
        assert "for 60 s so far" in capsys.readouterr().err
        show.runs([run])
        show.runs([{**run, "node_online": False}])
        assert "for 0 s so far; offline: the node of organization 3" in capsys.readouterr().err
    with progress.showing("task 1", wanted=False) as show:
        show.runs([{**run, "node_online": False}])
    assert capsys.readouterr() == ("", "")


def test_a_bar_only_where_it_is_wanted(capsys) -> None:
    with progress.showing("task 1", wanted=None) as show:
        show.runs([{"organization_id": 1, "status": "pending", "node_online": True}])
        show.line("unseen")
        assert not show.wants_lines
    assert capsys.readouterr() == ("", "")
    with progress.showing("task 1", wanted=True) as show:
        show.runs([{"organization_id": 1, "status": "completed", "node_online": True}])
        show.line("organization 1 | [bold]info > a")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of 1 runs ended" in captured.err
    assert "organization 1 | [bold]info > a" in captured.err


def test_a_bar_for_what_does_not_come_at_once(capsys) -> None:
    with progress.moving("result", wanted=True) as show:
        show(5, 5)
    with progress.moving("result", wanted=None) as show:
        show(1, 5)
    assert capsys.readouterr() == ("", "")
    with progress.moving("result", wanted=True) as show:
        show(1_000_000, 5_000_000)
        show(5_000_000, 5_000_000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "result" in shown.err
    assert "5.0/5.0 MB" in shown.err


def test_a_notebook_shows_one_output_that_is_written_anew(monkeypatch) -> None:
    class ZMQInteractiveShell:
        pass

    written = []

    class Handle:
        def update(self, content, *, raw):
            assert raw
            written.append(content["text/plain"])

    def display(content, *, display_id, raw):
        assert (display_id, raw) == (True, True)
        written.append(content["text/plain"])
        return Handle()

    notebook = types.ModuleType("IPython")
    notebook.get_ipython = ZMQInteractiveShell
    notebook.display = types.ModuleType("IPython.display")
    notebook.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", notebook.display)
    with progress.showing("task 1", wanted=None) as show:
        show.runs([{"organization_id": 1, "status": "active", "node_online": True}])
        for number in range(300):
            show.line(str(number))
    assert written[:2] == ["task 1", "task 1: 0 of 1 runs ended"]
    assert written[-1].splitlines() == [*map(str, range(100, 300)), "task 1: 0 of 1 runs ended"]
    with progress.showing("task 1", wanted=False) as show:
        show.line("unseen")
    assert len(written) == 302
