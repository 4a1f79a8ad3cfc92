"""How long until all is well again: after a kill of the server, of a node, for good of a node, of PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clusters import Cluster, cluster
from replicas import Replicas, replicas

from skerry import UserClient
from skerry.dev import Federation, Plan
from skerry.dev.federation import Places, down, up
from skerry.errors import SkerryError

IMAGE = "skerry-bench/noop"
COUNT = 3
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
HERE = Path(__file__).parent
SKERRY = Path(sys.executable).with_name("skerry")
PLAN = Plan(name="bench-recovery", nodes=1, launcher="docker")
AIMS = {
    "server_restart_to_first_dispatch": 5.0,
    "node_restart_to_reattached": 10.0,
    "node_loss_visible": 60.0,
    "postgresql_restart_to_serving": 10.0,
}


def build() -> None:
    subprocess.run([SKERRY, "algorithm", "build", HERE / "noop", "--tag", IMAGE], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def federation() -> Iterator[Federation]:
    made = up(PLAN, Places.of_user(), _say)
    try:
        yield made
    finally:
        down(PLAN.name, Places.of_user(), _say)


def create(client: UserClient, made: Federation, method: str, **kwargs: Any) -> Any:
    return client.task.create(
        organizations=[made.facts["organizations"][0]["id"]],
        name=method,
        image=IMAGE,
        collaboration=made.facts["collaboration"]["id"],
        input_={"method": method, "kwargs": kwargs},
    )


def until(condition: Callable[[], object]) -> float:
    """Seconds until it holds; calls that fail meanwhile don't count as an answer."""
    began = time.perf_counter()
    while time.perf_counter() - began < 300:
        with contextlib.suppress(SkerryError, OSError):
            if condition():
                return time.perf_counter() - began
        time.sleep(0.02)
    raise TimeoutError


def kill(pid: int) -> None:
    """It is gone, with its port, when this returns."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def revive(made: Federation) -> None:
    """What has died is started again, by the same command as a user's."""
    again = up(PLAN, Places.of_user(), lambda _: None)
    made.facts.update(again.facts)


def server_restart(made: Federation) -> float:
    """From the kill, with a task that waits, to the node's claim of it."""
    client = made.client()
    node = made.facts["nodes"][0]["pid"]
    os.kill(node, signal.SIGSTOP)
    task = create(client, made, "noop")
    kill(made.facts["server_pid"])
    os.kill(node, signal.SIGCONT)
    began = time.perf_counter()
    revive(made)
    until(lambda: made.client().request(f"task/{task['id']}")["status"] != "pending")
    took = time.perf_counter() - began
    task.wait(timeout=60)
    return took


def node_restart(made: Federation) -> float:
    """From the kill of a node whose algorithm runs, to the open gate of the next."""
    client = made.client()
    task = create(client, made, "sleep", seconds=8)
    until(lambda: client.request(f"task/{task['id']}")["status"] == "active")
    log = made.folder / "logs" / "node-1.log"
    size = log.stat().st_size
    kill(made.facts["nodes"][0]["pid"])
    began = time.perf_counter()
    revive(made)
    until(lambda: "is taken up again" in log.read_bytes()[size:].decode(errors="replace"))
    took = time.perf_counter() - began
    task.wait(timeout=60)
    return took


def node_loss(made: Federation) -> float:
    """From the kill of a node that does not come back, to its users' seeing it offline."""
    client, node = made.client(), made.facts["nodes"][0]["id"]
    kill(made.facts["nodes"][0]["pid"])
    took = until(lambda: client.request(f"node/{node}")["status"] == "offline")
    revive(made)
    return took


def postgresql_restart() -> list[float]:
    """From the kill of the whole cluster, which is started again at once, to a page of tasks from the server."""
    with (
        tempfile.TemporaryDirectory(prefix="skerry-bench-") as folder,
        cluster(PROGRAMS, durable=True) as made,
        replicas(Path(folder), made.url(made.make_database()), count=1, balanced=False) as server,
    ):
        return [_restart_once(made, server) for _ in range(COUNT)]


def _restart_once(made: Cluster, server: Replicas) -> float:
    began = time.perf_counter()
    made.stop("immediate")
    made.start()
    until(lambda: server.root.ask("GET", "task").ok)
    return time.perf_counter() - began


def report(name: str, values: list[float]) -> None:
    line = {
        "name": name,
        "value": round(statistics.median(values), 3),
        "unit": "s",
        "slowest": round(max(values), 3),
        "aim": AIMS[name],
        "n": len(values),
    }
    print(f"bench: {json.dumps(line)}", flush=True)


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr)


def main() -> None:
    build()
    with federation() as made:
        report("server_restart_to_first_dispatch", [server_restart(made) for _ in range(COUNT)])
        report("node_restart_to_reattached", [node_restart(made) for _ in range(COUNT)])
        report("node_loss_visible", [node_loss(made)])
    if PROGRAMS.is_dir():
        report("postgresql_restart_to_serving", postgresql_restart())


if __name__ == "__main__":
    main()
