"""The node's audit journal: it only grows, nothing of it changes unseen, and what it can't take is not done."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from skerry.audit import Record, Verifier, What
from skerry.errors import BrokenChain, ConfigurationError, NotRecorded
from skerry_node import trail as trails
from skerry_node.cli import tell
from skerry_node.config import Config
from skerry_node.journal import Entry
from skerry_node.pipeline import Pipeline
from skerry_node.policies import Relaxation
from skerry_node.trail import Trail, files_of, read_lines
from skerry_proxy.client import ProxyError

pytestmark = pytest.mark.unit
RUN = What("run", 7)


def noon() -> datetime:
    return datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def fill(folder: Path, count: int, **options) -> Trail:
    trail = Trail(folder, noon, **options)
    for number in range(count):
        trail.write("run.order", RUN, {"run": 7}, number=number, durable=number % 2 == 1)
    return trail


def verify(folder: Path) -> int:
    verifier = Verifier()
    for number, line in enumerate(read_lines(folder), start=1):
        verifier.feed(line, f"line {number}")
    verifier.finish()
    return verifier.records


def records(folder: Path) -> list[Record]:
    values = [json.loads(line) for line in read_lines(folder)]
    return [Record.parse(value) for value in values if "head" not in value]


def actions(folder: Path) -> list[str]:
    return [record.deed.action for record in records(folder)]


def test_the_chain_goes_on_over_restarts(folder: Path) -> None:
    fill(folder, 3).close()
    fill(folder, 2).close()
    assert [record.sequence for record in records(folder)] == [1, 2, 3, 4, 5]
    assert verify(folder) == 5


def test_nobody_else_may_read_it(folder: Path) -> None:
    fill(folder, 3).close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_full_file_is_put_aside_and_the_chain_goes_on(folder: Path) -> None:
    fill(folder, 20, largest=1500).close()
    names = [path.name for path in files_of(folder)]
    assert len(names) > 3
    assert names[0] == "audit.000000000003.jsonl"
    assert all(path.stat().st_size <= 1500 for path in files_of(folder))
    assert verify(folder) == 20
    fill(folder, 1, largest=1500).close()
    assert verify(folder) == 21
    files_of(folder)[1].unlink()
    with pytest.raises(BrokenChain, match="records 4 to 6 are removed or moved"):
        verify(folder)


def test_a_file_that_is_put_aside_while_the_journal_is_read(folder: Path) -> None:
    trail = fill(folder, 8, largest=1500)
    lines = read_lines(folder)
    first, before = next(lines), len(files_of(folder))
    for number in range(12):
        trail.write("run.order", RUN, number=number, durable=False)
    trail.close()
    assert len(files_of(folder)) > before
    verifier = Verifier()
    for line in (first, *lines):
        verifier.feed(line)
    assert verifier.finish()[0].sequence >= 8


def test_a_file_that_is_not_there(folder: Path) -> None:
    fill(folder, 2).close()
    (folder / "audit.000000000009.jsonl").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="one of its files is not there"):
        list(read_lines(folder))


def test_a_node_that_died_right_after_putting_a_file_aside(folder: Path) -> None:
    fill(folder, 4).close()
    (folder / "audit.jsonl").rename(folder / "audit.000000000004.jsonl")
    fill(folder, 1).close()
    assert verify(folder) == 5


def test_many_threads_make_one_chain(folder: Path) -> None:
    trail = Trail(folder, noon)
    threads = [threading.Thread(target=lambda: [trail.write("x", RUN) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail.close()
    assert verify(folder) == 200


def test_a_line_that_a_crash_left_unfinished_is_dropped_and_said(folder: Path) -> None:
    fill(folder, 2).close()
    with (folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"about":')
    assert verify(folder) == 2
    Trail(folder, noon).close()
    assert verify(folder) == 3
    assert records(folder)[-1].deed.details == {"bytes": 9}


def test_a_journal_that_was_cut_is_not_gone_on_with(folder: Path) -> None:
    fill(folder, 4).close()
    path = folder / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(BrokenChain, match="records 3 to 4 are missing, as its own writer noted"):
        verify(folder)
    with pytest.raises(ConfigurationError, match="was cut: of 4 records 2 are left"):
        Trail(folder, noon)
    path.unlink()
    with pytest.raises(ConfigurationError, match="was cut: of 4 records 0 are left"):
        Trail(folder, noon)


@pytest.mark.parametrize("change", [(b"order", b"olden"), (b"{", b"["), (b'"number":1', b'"number":7')])
def test_a_damaged_end_is_not_gone_on_with(change, folder: Path) -> None:
    fill(folder, 2).close()
    path = folder / "audit.jsonl"
    first, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + last.replace(*change))
    with pytest.raises(ConfigurationError, match="skerry audit verify --node"):
        Trail(folder, noon)


@pytest.mark.parametrize("content", ["x", "{}", "[]", '{"writer":"n","sequence":1,"hash":"x"}'])
def test_a_damaged_head(content: str, folder: Path) -> None:
    fill(folder, 2).close()
    (folder / "head").write_text(content)
    with pytest.raises(ConfigurationError, match="is damaged"):
        Trail(folder, noon)
    with pytest.raises(ConfigurationError, match="is damaged"):
        verify(folder)


def test_a_journal_that_is_not_there_is_empty(folder: Path) -> None:
    folder.mkdir()
    assert list(read_lines(folder)) == []


# --- when it can't be written ------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    """Half of a line gets onto the disk, and no more; ``clear`` makes room."""
    real, full = os.write, threading.Event()

    def write(descriptor: int, content: bytes) -> int:
        return real(descriptor, content[: len(content) // 2]) if full.is_set() else real(descriptor, content)

    monkeypatch.setattr(trails.os, "write", write)
    return full


def test_what_comes_after_the_end_goes_nowhere(folder: Path, tmp_path: Path) -> None:
    """The next file that is opened gets the journal's descriptor, and not what a late thread tells."""
    trail = fill(folder, 2)
    trail.close()
    with (tmp_path / "first").open("w+b") as first, (tmp_path / "second").open("w+b") as second:
        with pytest.raises(NotRecorded):
            trail.write("run.order", RUN, durable=True)
        trail.close()
        assert first.read() == second.read() == b""
    assert verify(folder) == 2


def test_what_does_not_fit_leaves_nothing_half(folder: Path, full_disk) -> None:
    trail = fill(folder, 2)
    full_disk.set()
    with pytest.raises(NotRecorded, match="make room on the disk"):
        trail.write("run.order", RUN)
    assert not trail.ready()
    full_disk.clear()
    assert trail.ready()
    trail.close()
    assert verify(folder) == 3
    assert actions(folder)[-1] == "journal.resume"


def audit_folder(parts) -> Path:
    return parts.config.state_folder / trails.FOLDER


def test_a_run_that_can_not_be_recorded_is_not_started(parts, proxy, server, make_order, full_disk) -> None:
    full_disk.set()
    Pipeline(parts, Entry(make_order())).carry_out()
    assert parts.launcher.starts == []
    assert proxy.asked == []
    [(_, status, text)] = server.finished
    assert status == "failed"
    assert "can't write its audit journal" in text
    assert not parts.trail.ready()


def test_a_journal_that_fails_right_before_the_start(parts, proxy, make_order, monkeypatch) -> None:
    """The record of the start itself does not fit; there is room again afterwards."""
    real = parts.trail.write

    def write(action, *arguments, **details):
        if action == "run.start":
            raise NotRecorded("The disk is full.")
        real(action, *arguments, **details)

    monkeypatch.setattr(parts.trail, "write", write)
    Pipeline(parts, Entry(make_order())).carry_out()
    assert parts.launcher.starts == []
    assert [status for status, _, _ in proxy.delivered] == ["failed"]


def test_a_result_waits_until_its_end_is_on_record(parts, proxy, make_order, monkeypatch) -> None:
    real, failures = parts.trail.write, ["run.end", "run.end", "run.deliver"]

    def write(action, *arguments, **details):
        if action in failures:
            failures.remove(action)
            raise NotRecorded("The disk is full.")
        real(action, *arguments, **details)

    monkeypatch.setattr(parts.trail, "write", write)
    Pipeline(parts, Entry(make_order())).carry_out()
    assert failures == []
    assert [status for status, _, _ in proxy.delivered] == ["completed"]
    assert [action for action in actions(audit_folder(parts)) if action in {"run.end", "run.deliver"}] == [
        "run.end",
        "run.deliver",
    ]


# --- stories -----------------------------------------------------------------------------------------------


def test_a_runs_story(parts, proxy, make_order) -> None:
    proxy.pins = lambda: [{"organization_id": 3, "fingerprint": "abc", "confirmed": False}]
    Pipeline(parts, Entry(make_order(databases=["default"]))).carry_out()
    found = {record.deed.action: record.deed for record in records(audit_folder(parts))}
    order = ["run.order", "key.pin", "run.admit", "run.start", "run.started", "run.end", "run.seal"]
    assert list(found)[: len(order)] == order
    assert set(list(found)[len(order) :]) == {"run.gate", "run.deliver", "run.delivered", "run.clean"}
    assert found["key.pin"].details == {"fingerprint": "abc", "confirmed": False}
    admit, start = found["run.admit"], found["run.start"]
    assert (admit.actor.kind, admit.actor.id, admit.actor.organization) == ("user", 7, 1)
    assert (admit.details["function"], admit.details["signed"]) == ("mean", True)
    assert (start.details["image"], start.details["databases"]) == ("copy", ["default"])
    assert start.details["image_id"]
    assert found["run.end"].details["output_bytes"] == len('{"method": "mean"}')
    assert found["run.gate"].details == {
        "calls": {"GET /task/<id>": 2},
        "refused": {"403": 1},
        "children": [9],
        "relays": [],
    }
    assert {name: deed.about.get("attempt") for name, deed in found.items() if name != "key.pin"}.keys() == (
        set(found) - {"key.pin"}
    )
    assert verify(audit_folder(parts)) == len(found)


def test_a_relaxed_sandbox_is_on_record_before_the_start(parts, make_order) -> None:
    Pipeline(parts, Entry(make_order())).carry_out()
    image_id = next(r.deed.details["image_id"] for r in records(audit_folder(parts)) if r.deed.action == "run.start")
    relaxation = Relaxation.model_construct(digest=image_id, setting="processes", value=5000)
    policies = parts.config.policies.model_copy(update={"relaxations": (relaxation,)})
    relaxed = replace(parts, config=parts.config.model_copy(update={"policies": policies}))
    Pipeline(relaxed, Entry(make_order(run=8))).carry_out()
    told = [r.deed.details["relaxed"] for r in records(audit_folder(parts)) if r.deed.action == "run.start"]
    assert told == [[], [str(relaxation)]]


def test_a_refusal_says_why(parts, make_order) -> None:
    Pipeline(parts, Entry(make_order(databases=["patients"]))).carry_out()
    [refused] = [r.deed for r in records(audit_folder(parts)) if r.deed.action == "run.refuse"]
    assert refused.details == {
        "status": "not allowed",
        "why": 'This node has no database "patients"; it has: default.',
    }
    assert "run.start" not in actions(audit_folder(parts))


def test_an_input_that_is_not_opened(parts, proxy, make_order) -> None:
    proxy.trouble["open"] = [ProxyError("refused", "The signature does not hold.")]
    Pipeline(parts, Entry(make_order())).carry_out()
    assert actions(audit_folder(parts)) == ["run.order", "run.refuse", "run.clean"]


def test_a_line_to_read(folder: Path) -> None:
    fill(folder, 1).close()
    assert tell(records(folder)[0]) == "2026-01-02T12:00:00.000  run.order      run 7 (by node): number: 0"


def test_a_story_on_the_command_line(parts, make_order, monkeypatch) -> None:
    from skerry_node import cli  # noqa: PLC0415

    for run in (7, 8):
        Pipeline(parts, Entry(make_order(run=run))).carry_out()
    config: Config = parts.config
    monkeypatch.setattr(cli, "_load", lambda _path: config)
    told = CliRunner().invoke(cli.node, ["audit", "--config", "x", "--run", "8"], catch_exceptions=False).output
    assert "run.admit      run 8 (by user 7)" in told
    assert "run 7" not in told
    whole = CliRunner().invoke(cli.node, ["audit", "--config", "x", "--json"], catch_exceptions=False).output
    assert whole.splitlines() == [r.line().decode().rstrip() for r in records(audit_folder(parts))]
