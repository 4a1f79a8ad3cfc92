"""Payloads in parts: uploads that go on where they broke off, and downloads that begin where the reader is."""

from __future__ import annotations

import base64
import io
import os
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from server_federation import Api, Federation, make_settings

from skerry_server.errors import Busy, InvalidRequest
from skerry_server.payloads import Part, PayloadStore, Span
from skerry_server.server import Server

pytestmark = pytest.mark.unit
KEY, YOUNG, OLD = Part("me", "key"), Part("me", "young"), Part("me", "old")
BIG = os.urandom(300_000)
INPUT = b'{"method": "mean", "kwargs": {"weights": "' + b"x" * 300_000 + b'"}}'


def files(server: Server) -> list[str]:
    return sorted(path.name for path in server.settings.payload_folder.iterdir())


def claimed(federation: Federation, researcher: Api) -> tuple[Api, str]:
    """A run's own voice, and its path."""
    federation.make_task(researcher)
    order = federation.claim()
    return federation.as_run(order), f"skerry/run/{order['run']}"


def put(api: Api, path: str, body: bytes, **query: Any) -> Any:
    return api.ask("PUT", path, data=body, query_string=query)


def cut_off(api: Api, path: str, body: bytes, announced: int, **query: Any) -> Any:
    announcing = {"CONTENT_LENGTH": str(announced)}
    return api.ask("PUT", path, input_stream=io.BytesIO(body), environ_overrides=announcing, query_string=query)


# --- results ---------------------------------------------------------------------------------------------


def test_a_result_goes_on_where_it_broke_off(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    assert run.get(f"{path}/upload", attempt=1) == {"received": 0, "complete": False}
    assert cut_off(run, f"{path}/result", BIG[:100_000], len(BIG), attempt=1).status_code == 400
    assert run.get(f"{path}/upload", attempt=1) == {"received": 100_000, "complete": False}
    assert put(run, f"{path}/result", BIG[100_000:200_000], attempt=1, start=100_000, size=len(BIG)).status_code == 202
    assert put(run, f"{path}/result", BIG[200_000:], attempt=1, start=200_000, size=len(BIG)).status_code == 204
    assert run.get(f"{path}/upload", attempt=1) == {"received": len(BIG), "complete": True}
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    assert researcher.ask("GET", f"{path}/result").data == BIG
    assert len(files(federation.server)) == 1


def test_what_was_sent_twice_counts_once(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    put(run, f"{path}/result", b"?" * 200_000, attempt=1, size=len(BIG))
    assert put(run, f"{path}/result", BIG[100_000:], attempt=1, start=100_000, size=len(BIG)).status_code == 204
    put(run, f"{path}/result", BIG, attempt=1, size=len(BIG))
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    assert researcher.ask("GET", f"{path}/result").data == BIG


def test_a_result_for_which_there_is_no_room_leaves_some_to_all_others(
    federation: Federation, researcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on where it broke off, once there is."""
    run, path = claimed(federation, researcher)
    disk = SimpleNamespace(f_frsize=1, f_blocks=10**12, f_bavail=64 << 20)
    monkeypatch.setattr(os, "fstatvfs", lambda _: disk)
    assert put(run, f"{path}/result", BIG, attempt=1, size=len(BIG)).status_code == 503
    federation.make_task(researcher, name="another")
    assert run.get(f"{path}/upload", attempt=1)["complete"] is False
    disk.f_bavail = 65 << 20
    assert put(run, f"{path}/result", BIG, attempt=1, size=len(BIG)).status_code == 204


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"start": 5}, '"start"'),
        ({"start": 0, "size": 3}, '"size"'),
        ({"start": -1}, "start"),
        ({"size": "many"}, "size"),
    ],
)
def test_parts_that_do_not_fit(federation: Federation, researcher: Api, query: dict[str, Any], told: str) -> None:
    run, path = claimed(federation, researcher)
    answer = put(run, f"{path}/result", b"four", attempt=1, **query)
    assert answer.status_code == 400
    assert told in answer.get_json()["msg"]


def spoil(server: Server) -> None:
    """Cuts the end off the one large payload."""
    [path] = server.settings.payload_folder.iterdir()
    os.truncate(path, 100_000)


def test_what_is_damaged_is_not_shown(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    put(run, f"{path}/result", BIG, attempt=1)
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    spoil(federation.server)
    assert "is damaged or lost" in researcher.refused(410, "GET", f"{path}/result")
    researcher.refused(410, "GET", "result", query_string={"task_id": 1})
    for file in federation.server.settings.payload_folder.iterdir():
        file.unlink()
    researcher.refused(410, "GET", f"{path}/result")


def test_a_damaged_input_can_not_be_fetched(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, organizations=[{"id": 2, "input": base64.b64encode(INPUT).decode()}])
    order = federation.claim()
    spoil(federation.server)
    federation.as_run(order).refused(410, "GET", f"skerry/run/{order['run']}/input")


def test_a_damaged_result_comes_again(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    put(run, f"{path}/result", BIG, attempt=1)
    spoil(federation.server)
    assert run.get(f"{path}/upload", attempt=1) == {"received": 0, "complete": False}
    put(run, f"{path}/result", BIG, attempt=1)
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    assert researcher.ask("GET", f"{path}/result").data == BIG


def test_another_attempt_begins_anew(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    run.refused(409, "GET", f"{path}/upload", query_string={"attempt": 2})
    run.refused(409, "PUT", f"{path}/result", data=b"x", query_string={"attempt": 2, "size": 2})


# --- inputs sent ahead -----------------------------------------------------------------------------------


def test_an_input_sent_ahead_in_parts(federation: Federation, researcher: Api) -> None:
    """Without a blob store in the configuration: that is for vantage6's clients."""
    path = f"skerry/blob/{(name := str(uuid.uuid4()))}"
    assert cut_off(researcher, path, INPUT[:1000], len(INPUT)).status_code == 400
    assert researcher.get(path) == {"received": 1000, "complete": False}
    answer = put(researcher, path, INPUT[1000:], start=1000, size=len(INPUT))
    assert answer.get_json() == {"uuid": name}
    assert researcher.get(path) == {"received": len(INPUT), "complete": True}
    federation.make_task(researcher, organizations=[{"id": 2, "input": name}])
    order = federation.claim()
    assert order["input"] is None
    assert order["input_size"] == len(INPUT)
    assert federation.as_run(order).ask("GET", f"skerry/run/{order['run']}/input").data == INPUT


def test_of_an_input_sent_ahead_others_learn_nothing(federation: Federation, researcher: Api) -> None:
    path = f"skerry/blob/{(name := str(uuid.uuid4()))}"
    put(researcher, path, INPUT[:1000], size=len(INPUT))
    other = federation.make_user()
    assert other.get(path) == {"received": 0, "complete": False}
    assert put(other, path, b"mine", size=4).status_code == 200
    assert "choose another UUID" in researcher.refused(409, "PUT", path, data=INPUT)
    body = federation.task_body(organizations=[{"id": 2, "input": name}])
    assert "not yours" in researcher.refused(400, "POST", "task", body)


def test_an_input_that_is_a_broken_envelope(federation: Federation, researcher: Api) -> None:
    told = researcher.refused(400, "PUT", f"skerry/blob/{uuid.uuid4()}", data=b"SKR1\xff\xff\xff\xff" + INPUT)
    assert "envelope" in told
    assert files(federation.server) == []


# --- downloads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-", 0, None), ("bytes=299999-", 299_999, None), ("bytes=10-19", 10, 20), ("bytes=-5", -5, None)],
)
def test_a_range(federation: Federation, researcher: Api, asked: str, start: int, end: int | None) -> None:
    run, path = claimed(federation, researcher)
    put(run, f"{path}/result", BIG, attempt=1)
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    answer = researcher.client.get(
        f"/api/{path}/result", headers={"Authorization": f"Bearer {researcher.token}", "Range": asked}
    )
    part = BIG[start:end]
    assert (answer.status_code, answer.data) == (206, part)
    first = start if start >= 0 else len(BIG) + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(BIG)}"


@pytest.mark.parametrize(("asked", "status"), [("bytes=300000-", 416), ("bytes=0-1,5-6", 200), ("lines=1-", 200)])
def test_ranges_that_are_not_served(federation: Federation, researcher: Api, asked: str, status: int) -> None:
    run, path = claimed(federation, researcher)
    put(run, f"{path}/result", BIG, attempt=1)
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    answer = researcher.client.get(
        f"/api/{path}/result", headers={"Authorization": f"Bearer {researcher.token}", "Range": asked}
    )
    assert answer.status_code == status
    assert status != 200 or answer.data == BIG


def test_a_range_of_a_small_one(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    federation.finish(order)
    headers = {"Authorization": f"Bearer {researcher.token}", "Range": "bytes=0-0"}
    answer = researcher.client.get(f"/api/skerry/run/{order['run']}/result", headers=headers)
    assert (answer.status_code, answer.data) == (206, b"1")


# --- inside JSON ------------------------------------------------------------------------------------------


HEAD = b"$".join(base64.b64encode(part) for part in (b"k" * 512, b"i" * 16)).decode() + "$"
"""How what vantage6 encrypts begins."""


def ended(federation: Federation, researcher: Api, stored: bytes, **task: Any) -> int:
    """A run with such a result, as it is stored."""
    federation.make_task(researcher, **task)
    order = federation.claim()
    run, path = federation.as_run(order), f"skerry/run/{order['run']}"
    assert put(run, f"{path}/result", stored, attempt=1).status_code == 204
    run.post(f"{path}/finish", {"attempt": 1, "status": "completed", "staged": True})
    return int(order["run"])


def in_json(researcher: Api, run: int) -> list[str]:
    """The result wherever it is shown."""
    [task] = researcher.get("task", include=["results", "runs"])["data"]
    [row] = researcher.get("result", task_id=task["id"])["data"]
    return [shown["result"] for shown in (researcher.get(f"result/{run}"), row, task["results"][0])]


def test_large_payloads_stand_in_json(federation: Federation, researcher: Api) -> None:
    spoken = base64.b64encode(INPUT).decode()
    run = ended(federation, researcher, BIG, organizations=[{"id": 2, "input": spoken}])
    assert in_json(researcher, run) == [base64.b64encode(BIG).decode()] * 3
    answer = researcher.ask("GET", f"run/{run}", environ_base={"HTTP_ACCEPT_ENCODING": "gzip"})
    assert (answer.get_json()["input"], answer.content_type) == (spoken, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert researcher.ask("HEAD", f"run/{run}").data == b""


def test_what_is_stored_does_not_end_its_string(federation: Federation, researcher: Api) -> None:
    """A node of vantage6's format can put any ASCII there."""
    together = federation.collaborate([1, 2], encrypted=True, accept="vantage6")
    federation.nodes[2] = federation.make_node(2, together)
    stored = HEAD + '"}, \\ \n\0' * 20_000
    asked = [{"id": 2, "input": HEAD + base64.b64encode(INPUT).decode()}]
    run = ended(federation, researcher, stored.encode(), collaboration_id=together, organizations=asked)
    assert in_json(researcher, run) == [stored] * 3
    assert researcher.get(f"run/{run}")["input"] == asked[0]["input"]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_list_of_large_payloads_holds_no_files_open(federation: Federation, researcher: Api) -> None:
    spoken = base64.b64encode(INPUT).decode()
    for _ in range(20):
        federation.make_task(researcher, organizations=[{"id": 2, "input": spoken}])
    before = open_files()
    answer = researcher.ask("GET", "run", query_string={"per_page": 20}, buffered=False)
    assert open_files() <= before + 5
    assert [row["input"] for row in answer.get_json()["data"]] == [spoken] * 20


# --- the store -------------------------------------------------------------------------------------------


def test_one_upload_of_a_part_at_a_time(tmp_path: Path) -> None:
    store, entered, go_on = PayloadStore.of_files(tmp_path), threading.Event(), threading.Event()

    def slow() -> Any:
        yield b"a" * 100_000
        entered.set()
        assert go_on.wait(20)
        yield b"b" * 100_000

    kept: list[Any] = []
    upload = threading.Thread(target=lambda: kept.append(store.receive(KEY, slow(), Span(0, 200_000), 1 << 20)))
    upload.start()
    assert entered.wait(20)
    with pytest.raises(Busy, match="under way"):
        store.receive(KEY, [b"c" * 200_000], Span(0, 200_000), 1 << 20)
    go_on.set()
    upload.join()
    assert b"".join(store.read(kept[0])) == b"a" * 100_000 + b"b" * 100_000


def test_a_broken_sender_leaves_what_came(tmp_path: Path) -> None:
    store = PayloadStore.of_files(tmp_path)

    def breaking() -> Any:
        yield b"a" * 1000
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.receive(KEY, breaking(), Span(0, 2000), 1 << 20)
    assert store.received(KEY) == 1000
    with pytest.raises(InvalidRequest):
        store.receive(KEY, [b"b"], Span(1001, 2000), 1 << 20)


def test_parts_outlive_a_restart_for_a_day(server: Server, tmp_path: Path) -> None:
    server.payloads.receive(YOUNG, [b"a" * 1000], Span(0, 2000), 1 << 20)
    server.payloads.receive(OLD, [b"a" * 1000], Span(0, 2000), 1 << 20)
    old = server.payloads._folder / OLD.name
    long_ago = time.time() - 25 * 3600
    os.utime(old, (long_ago, long_ago))
    server.begin()
    assert (server.payloads.received(YOUNG), server.payloads.received(OLD)) == (1000, 0)


def test_the_limit_counts_before_anything_is_written(federation: Federation, researcher: Api) -> None:
    limit = make_settings(Path()).limits.result_bytes
    path = f"skerry/blob/{uuid.uuid4()}"
    assert str(limit) in researcher.refused(413, "PUT", path, data=b"x", query_string={"size": limit + 1})
    assert files(federation.server) == []


def test_parts_count_as_what_waits(server: Server, federation: Federation, researcher: Api) -> None:
    """Whatever is not yet whole, a caller can't fill the disk with it."""
    room = server.settings.limits.waiting_bytes
    other = f"skerry/blob/{uuid.uuid4()}"
    assert put(researcher, other, INPUT[:1000], size=len(INPUT)).status_code == 202
    held = next(path for path in server.settings.payload_folder.iterdir())
    os.truncate(held, room)
    told = researcher.refused(413, "PUT", f"skerry/blob/{uuid.uuid4()}", data=INPUT)
    assert str(room) in told
    held.unlink()
    assert put(researcher, other, INPUT).status_code == 200


def test_a_run_has_one_upload_under_way(federation: Federation, researcher: Api) -> None:
    run, path = claimed(federation, researcher)
    for digit in "abc":
        put(run, f"{path}/result", b"half", attempt=1, size=8, of=digit * 64)
    assert len(files(federation.server)) == 1
