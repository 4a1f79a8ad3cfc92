"""What a large payload costs the server's process where it stands inside JSON, as vantage6's clients have it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replicas import Caller, Replica, replicas

pytestmark = pytest.mark.integration
BLOCK = hashlib.shake_256(b"large").digest(3 << 20)
SIZE = 22 * len(BLOCK)
TEXT = base64.b64encode(BLOCK).decode() * (SIZE // len(BLOCK))
"""The payload as it stands in JSON."""
LITTLE = 32 << 20
"""Bytes by which the process may grow while twice as many and more pass through it."""


@dataclass(frozen=True)
class Large:
    """A process of a server which has a run with a large result, and one with a large input."""

    replica: Replica
    root: Caller
    task: int
    run: int
    asked: int
    posted: int

    def ask(self, path: str) -> tuple[Any, int]:
        return peak(self.replica, self.root, "GET", path)


def peak(replica: Replica, caller: Caller, method: str, path: str, body: Any = None) -> tuple[Any, int]:
    """What is answered, and by how many bytes the process has grown at most meanwhile."""
    assert replica.process is not None
    process = Path(f"/proc/{replica.process.pid}")
    caller.ok("GET", "task")
    before = _memory(process, "VmRSS:")
    (process / "clear_refs").write_text("5")  # forgets the peak
    answer = caller.ok(method, path, body)
    return answer, _memory(process, "VmHWM:") - before


def _memory(process: Path, what: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    with replicas(tmp_path_factory.mktemp("server"), None, count=1, nodes=2, balanced=False) as made:
        [replica] = made.each
        task = made.root.ok("POST", "task", made.task(0))
        [order] = made.node(0).ok("POST", "skerry/node/work", {"capacity": 1, "wait": 0})["runs"]
        result = f"skerry/run/{order['run']}/result"
        sent = made.node(0).ask("PUT", result, params={"attempt": 1}, data=(BLOCK for _ in range(SIZE // len(BLOCK))))
        assert sent.status_code == 204, sent.text
        body = {"attempt": 1, "status": "completed", "staged": True}
        made.node(0).ok("POST", f"skerry/run/{order['run']}/finish", body)
        spoken = base64.b64encode(b"a" * SIZE).decode()
        asked = made.task(1)
        asked["organizations"][0]["input"] = spoken
        waiting, posted = peak(replica, made.root, "POST", "task", asked)
        replica.end()  # what it has kept of that would hide what else it takes
        replica.start()
        [run] = made.root.ok("GET", f"skerry/task/{waiting['id']}/wait?timeout=1")["runs"]
        yield Large(replica, made.root, task["id"], order["run"], run["id"], posted)


@pytest.mark.parametrize("path", ["result/{run}", "result?task_id={task}", "task/{task}?include=runs,results"])
def test_a_large_result_in_json(large: Large, path: str) -> None:
    answer, grown = large.ask(path.format(run=large.run, task=large.task))
    rows = answer.get("data") or answer.get("results") or [answer]
    assert rows[0]["result"] == TEXT
    assert grown < LITTLE


@pytest.mark.parametrize("path", ["run/{run}", "run?state=open"])
def test_a_large_input_in_json(large: Large, path: str) -> None:
    answer, grown = large.ask(path.format(run=large.asked))
    [row] = answer.get("data") or [answer]
    assert row["input"] == base64.b64encode(b"a" * SIZE).decode()
    assert grown < LITTLE


def test_a_large_input_is_held_twice_while_it_is_posted(large: Large) -> None:
    """As the body and as the string in it."""
    assert large.posted < 2.5 * len(TEXT)
