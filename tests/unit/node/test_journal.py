from __future__ import annotations

import json
from dataclasses import replace

import pytest

from skerry.errors import NotRecorded, ServerError
from skerry.wire import Limit, Status
from skerry_node.journal import Entry, Finish, Journal, Records, Stage
from skerry_node.launchers.launcher import Attempt, Found, Phase
from skerry_node.orders import parse_order, parse_work
from skerry_node.reconcile import plan
from skerry_node.users import Users, default_base

pytestmark = pytest.mark.unit


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "runs")


@pytest.mark.parametrize("status", [Status.COMPLETED, Limit.TIME])
def test_an_entry_comes_back_as_it_was(journal, make_order, status) -> None:
    finish = Finish(status, "sealed log", result=True)
    entry = Entry(make_order(), Stage.SEALED, {"secret": "x"}, 70000, 12.5, finish, {"gate terms": 18642})
    journal.write(entry)
    assert journal.read() == Records((entry,), ())


def test_seconds_since_another_boot_say_nothing(journal, make_order, monkeypatch) -> None:
    entry = Entry(make_order(), Stage.STARTING, {}, started=12.5)
    journal.write(entry)
    monkeypatch.setattr("skerry_node.journal.boot_id", lambda: "the next one")
    assert journal.read().entries == (replace(entry, started=None),)


def test_an_entry_that_the_version_before_wrote(journal, make_order) -> None:
    """Its ``started`` is a time of day."""
    entry = Entry(make_order(), Stage.STARTING, {}, started=1_700_000_000.0)
    journal.write(entry)
    file = journal.folder(entry.key) / "entry.json"
    stored = json.loads(file.read_text())
    del stored["boot"]
    file.write_text(json.dumps(stored))
    assert journal.read() == Records((replace(entry, started=None),), ())


def test_entries_are_private(journal, make_order) -> None:
    journal.write(Entry(make_order()))
    [file] = journal.folder(Attempt(7, 1)).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_end_that_a_full_disk_did_not_take_is_written_down_later(journal, make_order, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise NotRecorded

    entry = Entry(make_order())
    journal.write(entry)
    with monkeypatch.context() as on_a_full_disk:
        on_a_full_disk.setattr(journal._ended, "add", full)
        with pytest.raises(NotRecorded):
            journal.conclude(entry.key, entry.order.task.uuid)
        journal.catch_up()
    assert journal.read().entries == (entry,)
    journal.catch_up()
    assert journal.read() == Records((), ())
    assert journal.is_over(entry.order)


def test_a_later_step_replaces_an_earlier_one(journal, make_order) -> None:
    entry = Entry(make_order())
    journal.write(entry)
    journal.write(replace(entry, stage=Stage.STARTING, resume={}))
    assert [one.stage for one in journal.read().entries] == [Stage.STARTING]


def test_remove_leaves_nothing(journal, make_order) -> None:
    entry = Entry(make_order())
    journal.write(entry)
    journal.sealed(entry.key).write_text("x")
    journal.remove(entry.key)
    assert journal.read() == Records((), ())
    assert not journal.folder(entry.key).exists()


DAMAGE = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "garbage": lambda text: "\0\x01" * 40,
    "another thing": lambda text: "[1, 2]",
    "a field gone": lambda text: text.replace('"ports": {}', '"x": {}'),
    "a field of another type": lambda text: text.replace('"user": null', '"user": "root"'),
    "a user that is root": lambda text: text.replace('"user": null', '"user": 0'),
    "another attempt": lambda text: text.replace('"attempt": 1', '"attempt": 2'),
    "started without knowing how to go on": lambda text: text.replace('"claimed"', '"starting"'),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_said_and_costs_no_other(journal, make_order, caplog, damage) -> None:
    for run in (7, 8, 9):
        journal.write(Entry(make_order(run=run)))
    file = journal.folder(Attempt(8, 1)) / "entry.json"
    file.write_text(DAMAGE[damage](file.read_text()))
    records = journal.read()
    assert [entry.key.run for entry in records.entries] == [7, 9]
    assert records.lost == (Attempt(8, 1),)
    assert "is damaged" in caplog.text


def test_what_was_lost_stays_so_until_it_is_removed(journal, make_order) -> None:
    """And nothing of it but its name."""
    entry = Entry(make_order(run=8))
    journal.write(entry)
    journal.sealed(entry.key).write_bytes(b"result")
    journal.lose(Attempt(8, 1))
    assert [path.name for path in journal.folder(entry.key).iterdir()] == ["lost"]
    assert journal.read() == Records((), (Attempt(8, 1),))
    journal.remove(Attempt(8, 1))
    assert journal.read() == Records((), ())


def test_a_strangers_folder_is_left_alone(journal, tmp_path) -> None:
    (tmp_path / "runs" / "lost+found").mkdir()
    assert journal.read() == Records((), ())
    assert (tmp_path / "runs" / "lost+found").exists()


def test_a_folder_without_an_entry_is_rubbish(journal) -> None:
    (journal.folder(Attempt(9, 1)) / "data").mkdir(parents=True)
    assert journal.read() == Records((), ())
    assert not journal.folder(Attempt(9, 1)).exists()


# --- what a restart makes of it ---------------------------------------------------------------------------

CASES = [
    (Stage.CLAIMED, None, "forget"),
    (Stage.CLAIMED, Phase.CREATED, "forget"),
    (Stage.CLAIMED, Phase.RUNNING, "resume"),
    (Stage.STARTING, None, "resume"),
    (Stage.STARTING, Phase.CREATED, "resume"),
    (Stage.STARTING, Phase.RUNNING, "resume"),
    (Stage.STARTING, Phase.EXITED, "resume"),
    (Stage.SEALED, None, "resume"),
    (Stage.SEALED, Phase.CREATED, "resume"),
    (Stage.SEALED, Phase.RUNNING, "resume"),
    (Stage.SEALED, Phase.EXITED, "resume"),
    (Stage.CLAIMED, Phase.EXITED, "resume"),
]


@pytest.mark.parametrize(("stage", "phase", "what"), CASES)
def test_only_what_was_certainly_never_started_is_forgotten(make_order, stage, phase, what) -> None:
    entry = Entry(make_order(), stage)
    found = [] if phase is None else [Found(entry.key, phase)]
    made = plan(Records((entry,), ()), found)
    assert made.orphans == ()
    assert (made.forget, made.resume) == (((entry,), ()) if what == "forget" else ((), (entry,)))


def test_every_case_is_there() -> None:
    assert {(stage, phase) for stage, phase, _ in CASES} == {(s, p) for s in Stage for p in (None, *Phase)}


def test_a_container_without_an_entry_may_have_done_its_work() -> None:
    orphans = [Found(Attempt(run, 1), phase) for run, phase in enumerate(Phase, 1)]
    made = plan(Records((), (Attempt(9, 2),)), orphans)
    assert made.orphans == (Attempt(1, 1), Attempt(2, 1), Attempt(3, 1))
    assert made.lost == (Attempt(2, 1), Attempt(3, 1), Attempt(9, 2))


# --- what the server says -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"run": 0}, "run"),
        ({"run": "7"}, "run"),
        ({"attempt": True}, "attempt"),
        ({"task": {}}, "task.id"),
        ({"token": 1}, "token"),
    ],
)
def test_a_malformed_order_is_named(make_order, change, field) -> None:
    with pytest.raises(ServerError, match=f'"{field}"'):
        parse_order({**make_order().raw, **change})


@pytest.mark.parametrize("value", [None, [], {}, {"runs": None, "stop": [], "finished_jobs": []}, "x"])
def test_a_malformed_answer(value) -> None:
    with pytest.raises(ServerError):
        parse_work(value)


def test_what_a_newer_server_adds_is_let_pass(make_order) -> None:
    raw = {**make_order().raw, "colour": "red"}
    work = parse_work({"runs": [raw], "stop": [], "finished_jobs": [], "lease_seconds": 120, "more": 1})
    assert work.runs[0].raw == raw


# --- users ----------------------------------------------------------------------------------------------------


def test_each_run_has_a_user_of_its_own() -> None:
    users = Users(70000, [70000])
    taken = [users.take() for _ in range(3)]
    assert taken == [70001, 70002, 70003]
    users.give_back(70002)
    assert users.take() == 70002


def test_groups_are_never_users() -> None:
    users = Users(70000, [])
    assert {users.group_of(job) for job in range(2000)}.isdisjoint(range(70000, 70500))


def test_the_range_of_an_installation() -> None:
    for installation in ("0" * 12, "f" * 12, "c0ffee"):
        base = default_base(installation)
        assert 1_900_000_000 <= base < base + 1000 <= 2**31 - 1
