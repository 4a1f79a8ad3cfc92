"""A full disk: the container is told to come again, and what failed leaves nothing behind."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Callable

import pytest
from federation import answer_child

from skerry.wire import b64
from skerry_proxy.ledger import Child, Ledger
from skerry_proxy.spools import IN_MEMORY

pytestmark = pytest.mark.unit
LARGE = b'{"method": "partial", "kwargs": {"filler": "' + b"x" * IN_MEMORY + b'"}}'


@pytest.fixture
def fill(monkeypatch) -> Callable[[], Callable[[], None]]:
    """Fills the disk; what it returns makes room again."""
    made = tempfile.TemporaryFile

    def full() -> Callable[[], None]:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b"))
        return lambda: monkeypatch.setattr(tempfile, "TemporaryFile", made)

    return full


def wish(given: bytes) -> dict:
    return {"name": "subtask", "organizations": [{"id": 3, "input": b64(given)}]}


def is_told(answer) -> bool:
    return (answer.status_code, "disk of this node is full" in answer.json()["msg"]) == (503, True)


def test_an_input_sent_ahead(bench, call, carol, fill) -> None:
    caller = bench.serve(bench.open()["resume"])
    headers, make_room = {"X-Public-Key": b64(carol.public_pem)}, fill()
    for size in (10, 100_000, len(LARGE)):
        assert is_told(call(caller, "POST", "/blobstream", data=LARGE[:size], headers=headers))
    make_room()
    children = bench.office._served[7, 1].gate._desk.children
    assert children._blobs._waiting == {}
    assert call(caller, "POST", "/blobstream", data=LARGE, headers=headers).status_code == 201


def test_a_child_task(bench, call, fill) -> None:
    caller = bench.serve(bench.open()["resume"])
    make_room = fill()
    assert is_told(call(caller, "POST", "/task", json=wish(LARGE)))
    make_room()
    assert call(caller, "POST", "/task", json=wish(LARGE)).status_code == 201
    assert len(bench.fake.posts) == 1


def test_a_childs_result(bench, call, bob, carol, fill) -> None:
    caller = bench.serve(bench.open()["resume"])
    assert call(caller, "POST", "/task", json=wish(b"{}") | {"databases": [{"label": "default"}]}).status_code == 201
    [post] = bench.fake.posts
    bench.fake.complete(1000, answer_child("native", LARGE, post, carol, bob))
    make_room = fill()
    assert is_told(call(caller, "GET", "/result/1000"))
    make_room()
    answer = call(caller, "GET", "/result/1000")
    assert answer.status_code == 200, answer.text


def plan(ledger: Ledger, children: list[Child]) -> None:
    for child in children:
        ledger.plan_child((7, 1), child, "wish", 1000, 0)


def test_the_ledger(tmp_path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    children = [Child(str(uuid.uuid4()), ({"label": "x" * 4000},), frozenset({3})) for _ in range(50)]
    ledger._connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(OSError, match="ledger") as raised:
        plan(ledger, children)
    assert raised.value.errno == errno.ENOSPC
    noted = ledger.find_unanswered((7, 1), "wish")
    assert 0 < len(noted) < len(children)
    ledger._connection.execute("PRAGMA max_page_count = 4000")
    plan(ledger, children[-1:])
    assert ledger.find_unanswered((7, 1), "wish") == [*noted, children[-1].uuid]
    ledger.close()
