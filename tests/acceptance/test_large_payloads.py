"""Inputs and results of tens of megabytes on real parts: intact, in little memory, and through cut connections."""

from __future__ import annotations

import hashlib
import json
import select
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devfederation import DevFederation
from walks import below

from skerry import UserClient

pytestmark = pytest.mark.acceptance
IMAGE = "skerry-tests/probe"
SIZE = 48_000_000
LITTLE = 24 << 20
"""Bytes by which a process may grow while a payload of twice as many passes through it."""


@pytest.fixture(scope="module")
def federation(dev, probe_image, tmp_path_factory) -> Iterator[DevFederation]:
    """One node, whose runs have their files on the disk."""
    settings = tmp_path_factory.mktemp("settings") / "node.json"
    limits = {"input": "64m", "output": "64m", "in_memory": "1m", "parallel_runs": 2}
    settings.write_text(json.dumps({"limits": limits}))
    with dev("--nodes", "1", "--node-settings", str(settings)) as made:
        yield made


def create(client: UserClient, federation: DevFederation, method: str, **arguments: Any) -> Any:
    return client.task.create(
        organizations=federation.organization_ids,
        name=method,
        image=IMAGE,
        collaboration=federation.collaboration_id,
        input_={"method": method, "kwargs": arguments},
    )


def expected(size: int) -> str:
    """The digest of what the algorithm writes."""
    block, whole = hashlib.shake_256(b"large").digest(1 << 20), hashlib.sha256()
    for start in range(0, size, len(block)):
        whole.update((start.to_bytes(8, "big") + block[8:])[: size - start])
    return whole.hexdigest()


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# --- memory ----------------------------------------------------------------------------------------------


def processes(federation: DevFederation) -> dict[str, int]:
    [node] = federation.node_pids
    children = Path(f"/proc/{node}/task/{node}/children").read_text().split()
    [proxy] = [one for one in children if b"skerry_proxy" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return {"server": federation.server_pid, "node": node, "proxy": int(proxy)}


def memory(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


@contextmanager
def little_memory(federation: DevFederation) -> Iterator[None]:
    pids = processes(federation)
    before = {name: memory(pid, "VmRSS:") for name, pid in pids.items()}
    for pid in pids.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak
    yield
    grown = {name: memory(pid, "VmHWM:") - before[name] for name, pid in pids.items()}
    assert all(size < LITTLE for size in grown.values()), grown


def test_a_large_result_passes_in_little_memory(federation, tmp_path) -> None:
    client = federation.client()
    create(client, federation, "echo", value=1).wait(timeout=120, progress=False)  # whatever is loaded once
    with little_memory(federation):
        task = create(client, federation, "large", size=SIZE).wait(timeout=120, progress=False)
        [file] = task.download(tmp_path)
        [row] = client.request("result", params={"task_id": task["id"]})["data"]
    assert row["blob_storage_used"]
    assert str(uuid.UUID(row["result"])) == row["result"]
    assert file.stat().st_size == SIZE
    assert digest(file) == expected(SIZE)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert not [path for path in below(federation.folder) if path.suffix == ".ext4"]


def test_a_large_input_passes_in_little_memory(federation) -> None:
    client, text = federation.client(), "0123456789abcdef" * (SIZE // 16)
    with little_memory(federation):
        task = create(client, federation, "digest", text=text).wait(timeout=120, progress=False)
    assert task.results() == [hashlib.sha256(text.encode()).hexdigest()]


# --- cut connections -------------------------------------------------------------------------------------


class Cutter:
    """Stands before the server; cuts the connection each time that so many bytes more have passed, a few times."""

    def __init__(self, port: int, after: int, times: int) -> None:
        self._port, self._after, self.left = port, after, times
        self._passed, self._lock = 0, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._start(self._listen)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self._open.append(caller)
                self._start(self._pass_on, caller)

    def _pass_on(self, caller: socket.socket) -> None:
        with caller, socket.create_connection(("127.0.0.1", self._port)) as server, suppress(OSError):
            others = {caller: server, server: caller}
            while True:
                for one in select.select([caller, server], [], [])[0]:
                    piece = one.recv(65536)
                    if not piece or self._cuts(len(piece)):
                        return
                    others[one].sendall(piece)

    def _cuts(self, size: int) -> bool:
        with self._lock:
            self._passed += size
            if self.left and self._passed > self._after:
                self._passed, self.left = 0, self.left - 1
                return True
            return False


@pytest.fixture
def cutter(federation) -> Iterator[Cutter]:
    made = Cutter(federation.port, after=SIZE // 4, times=3)
    yield made
    made.close()


def through(cutter: Cutter, federation: DevFederation) -> UserClient:
    """A client that reaches the server only there."""
    client = UserClient("http://127.0.0.1", cutter.port, federation.facts["server"]["api_path"])
    who = federation.facts["users"][0]
    client.authenticate(who["username"], who["password"])
    client.setup_encryption(federation.facts["organizations"][0]["private_key_file"])
    return client


def test_a_download_goes_on_where_it_was_cut(federation, cutter, tmp_path) -> None:
    task = create(federation.client(), federation, "large", size=SIZE).wait(timeout=120, progress=False)
    client = through(cutter, federation)
    [run] = task.runs()
    file = client.result.download(run["id"], tmp_path / "result")
    assert cutter.left == 0
    assert digest(file) == expected(SIZE)


def test_an_upload_goes_on_where_it_was_cut(federation, cutter) -> None:
    text = "fedcba9876543210" * (SIZE // 16)
    task = create(through(cutter, federation), federation, "digest", text=text)
    assert cutter.left == 0
    assert task.wait(timeout=120, progress=False).results() == [hashlib.sha256(text.encode()).hexdigest()]


# --- forms -----------------------------------------------------------------------------------------------


def test_arrays_and_tables_arrive_as_such(federation) -> None:
    client = federation.client()
    numbers, table = (create(client, federation, method, count=1000) for method in ("numbers", "table"))
    [found] = numbers.wait(timeout=120, progress=False).results()
    assert (found["count"], found["weights"][1].tolist()) == (1000, np.eye(2).tolist())
    assert np.array_equal(found["weights"][0], np.arange(1000.0))
    [frame] = table.results()
    assert (frame.shape, frame["x"].sum(), set(frame["y"])) == ((1000, 2), 499_500, {"a"})


def test_children_return_arrays_to_their_parent(federation) -> None:
    task = create(federation.client(), federation, "add_up", organizations=federation.organization_ids, count=20_000)
    [total] = task.wait(timeout=120, progress=False).results()
    assert np.array_equal(total, np.arange(20_000.0))


def test_a_result_that_is_too_large_says_so(federation) -> None:
    task = create(federation.client(), federation, "large", size=80 << 20).wait(timeout=120, progress=False)
    [run] = task.runs()
    assert run["status"] == "crashed"
    assert "this node allows 67108864 (limits.output)" in run["log"]
