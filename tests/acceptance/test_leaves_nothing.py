"""After a hundred runs, some of them killed, the machine is as it was before."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from skerry.dev.leftovers import mounts_below

pytestmark = pytest.mark.acceptance

ROUNDS, NODES = 34, 3
KILL_EVERY = 4
PATIENCE = 180.0
NOOP = "echo -n {} > $(echo /mnt/data/task-*/output)"
WAIT = "/busybox sleep 1000"


def output_of(*command: str) -> list[str]:
    return sorted(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def build(tag: str, script: str) -> str:
    dockerfile = f'FROM skerry/holder\nENTRYPOINT ["/busybox", "sh", "-c", "{script}"]\n'
    subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-"], input=dockerfile.encode(), check=True, capture_output=True
    )
    return tag


def children_of(pids: list[int]) -> int:
    """All descendants of these processes: nodes, their proxies, and what those started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family, before = set(pids), 0
    while len(family) != before:
        before = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return len(family)


def traces(federation) -> dict[str, object]:
    """All that runs could leave, by where they would leave it."""
    pids = [*federation.node_pids, federation.server_pid]
    mine = [node for filters in federation.engine_filters() for node in filters if node != "--filter"]
    return {
        "containers": sum(len(output_of("docker", "ps", "-aq", "--filter", label)) for label in mine),
        "volumes": output_of("docker", "volume", "ls", "-q"),
        "networks": output_of("docker", "network", "ls", "-q"),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "folders": sorted(
            str(path)
            for state in federation.folder.rglob("installation")
            for name in ("runs", "jobs", "preflight", "proxy")
            for path in (state.parent / name).rglob("*")
        ),
        "mounts": mounts_below(federation.folder),
        "processes": children_of(pids),
        "sockets": [path for path in federation.folder.rglob("*") if path.is_socket()],
    }


def settle(federation, before: dict[str, object]) -> dict[str, object]:
    """What is there once it is as before, or when patience ends: the last job's folder goes a moment after its end."""
    end = time.monotonic() + PATIENCE
    while (now := traces(federation)) != before and time.monotonic() < end:
        time.sleep(0.2)
    return now


def test_a_hundred_runs_leave_nothing(dev, images) -> None:
    noop, wait = build("skerry-tests/noop", NOOP), build("skerry-tests/wait", WAIT)
    with dev("--nodes", str(NODES)) as federation:
        client = federation.client()

        def create(image: str):
            return client.task.create(
                organizations=federation.organization_ids,
                name="noop",
                image=image,
                collaboration=federation.collaboration_id,
                input_={"method": "noop"},
            )

        assert create(noop).wait(timeout=PATIENCE).results() == [{}] * NODES
        before = steady(federation)
        finished, killed = [], []
        for number in range(ROUNDS):
            (killed if number % KILL_EVERY == 0 else finished).append(
                create(wait if number % KILL_EVERY == 0 else noop)
            )
            if number % KILL_EVERY == KILL_EVERY - 1:
                client.task.kill(killed[-1]["id"])
        client.task.kill(killed[-1]["id"])
        for task in finished:
            assert task.wait(timeout=PATIENCE).results() == [{}] * NODES
        assert ROUNDS * NODES > 100
        assert settle(federation, before) == before


def steady(federation) -> dict[str, object]:
    """What is there when nothing changes any more: full pools, no probes, no first job."""
    end, last = time.monotonic() + PATIENCE, traces(federation)
    while time.monotonic() < end:
        time.sleep(1)
        now = traces(federation)
        if now == last and now["containers"] == 2 * NODES and not now["mounts"]:
            return now
        last = now
    raise AssertionError(f"the federation does not come to rest: {last}")
