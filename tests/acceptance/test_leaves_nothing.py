"""After a hundred runs, some of them killed, the machine is as it was before."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest
from walks import below

from skerry.dev.leftovers import mounts_below

pytestmark = pytest.mark.acceptance

ROUNDS, NODES = 34, 3
KILL_EVERY = 4
PATIENCE = 180.0
NOOP = "echo -n {} > $(echo /mnt/data/task-*/output)"
EVENTS = ("docker", "events", "--filter", "event=create", "--filter", "type=container", "--format", "{{.ID}}")
WAIT = "/busybox sleep 1000"


def output_of(*command: str) -> list[str]:
    return sorted(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def build(tag: str, script: str) -> str:
    dockerfile = f'FROM skerry/holder\nENTRYPOINT ["/busybox", "sh", "-c", "{script}"]\n'
    subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-"], input=dockerfile.encode(), check=True, capture_output=True
    )
    return tag


def family_of(pids: list[int]) -> set[int]:
    """These processes and all their descendants: nodes, their proxies, and what those started."""
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
    return family


def held_by(pids: list[int]) -> int:
    """Open files and threads of these processes and their descendants."""
    found = 0
    for pid in family_of(pids):
        for kind in ("fd", "task"):
            with contextlib.suppress(OSError):
                found += sum(1 for _ in Path(f"/proc/{pid}/{kind}").iterdir())
    return found


def control_groups(began: float) -> list[str]:
    """Those of this engine's containers that have been made since then, and are gone; it remembers the last ones."""
    made = output_of(*EVENTS, "--since", f"{began:.0f}", "--until", f"{time.time():.0f}")
    gone = {*made} - {*output_of("docker", "ps", "-aq", "--no-trunc")}
    assert gone
    return sorted({path.name for path in Path("/sys/fs/cgroup").glob("*/docker/*") if path.name in gone})


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
            for state in below(federation.folder, "installation")
            for name in ("runs", "jobs", "preflight", "proxy")
            for path in below(state.parent / name)
        ),
        "mounts": mounts_below(federation.folder),
        "processes": len(family_of(pids)),
        "tables": output_of("nft", "list", "tables"),
        "owners": owners(federation.folder),
        "sockets": [path for path in below(federation.folder) if path.is_socket()],
    }


def owners(folder: Path) -> list[int]:
    found = set()
    for path in below(folder):
        with contextlib.suppress(FileNotFoundError):
            found.add(path.lstat().st_uid)
    return sorted(found)


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
        before, began = steady(federation), time.time()
        held = held_by(federation.node_pids)
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
        assert control_groups(began) == []
        assert held_by(federation.node_pids) < held + ROUNDS


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
