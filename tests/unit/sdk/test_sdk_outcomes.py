from __future__ import annotations

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
    assert outcomes.describe([run]) == "Organization 1: unknown error: the node was lost"
    assert outcomes.describe([{**run, "reason": "unknown error"}]) == "Organization 1: unknown error."


def test_one_sentence_for_each_failed_run() -> None:
    runs = [
        {"organization_id": 1, "status": "completed", "log": "fine"},
        {"organization_id": 2, "status": "crashed", "log": "error > no such column\n"},
        {"organization_id": 3, "status": "killed by user", "log": None},
    ]
    told = outcomes.describe(runs, {3: "north"})
    assert told == "Organization 2: crashed: no such column Organization 3 (north): killed by user."


def test_progress_names_who_is_missing() -> None:
    runs = [
        {"organization_id": 1, "status": "completed", "node_online": False},
        {"organization_id": 2, "status": "crashed", "node_online": True},
        {"organization_id": 3, "status": "pending", "node_online": False},
        {"organization_id": 4, "status": "active", "node_online": True},
    ]
    assert progress.describe(runs) == "2 of 4 runs ended, 1 of them failed; offline: the node of organization 3"
    assert progress.describe(runs[:1]) == "1 of 1 runs ended"


def test_a_bar_only_where_it_is_wanted(capsys) -> None:
    with progress.showing("task 1", wanted=None) as show:
        show([{"organization_id": 1, "status": "pending", "node_online": True}])
    assert capsys.readouterr() == ("", "")
    with progress.showing("task 1", wanted=True) as show:
        show([{"organization_id": 1, "status": "completed", "node_online": True}])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of 1 runs ended" in captured.err
